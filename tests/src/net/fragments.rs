//! Datagrams cut into fragments, as a host on the way does it.

const IPV4: usize = 20;
const IPV6: usize = 40;
const FRAGMENT: u8 = 44;

/// The datagram of a frame whose IP header, without options, begins at `ip`, in fragments of `unit` bytes (a multiple of
/// eight) behind the IP header.
#[must_use]
pub fn cut(frame: &[u8], ip: usize, unit: usize, id: u16) -> Vec<Vec<u8>> {
    let data = &frame[ip + header(frame, ip)..];
    let pieces = data.chunks(unit).count();
    let places = (0..pieces).map(|number| number * unit);
    places
        .map(|from| piece(frame, ip, (from, data.len().min(from + unit)), id))
        .collect()
}

/// One fragment of it, from one byte of the datagram to another.
#[must_use]
pub fn piece(frame: &[u8], ip: usize, (from, to): (usize, usize), id: u16) -> Vec<u8> {
    let (headers, data) = frame.split_at(ip + header(frame, ip));
    let place = u16::try_from(from / 8).expect("a datagram's offset");
    let more = to < data.len();
    let mut fragment = headers.to_vec();
    let length = |bytes: usize| u16::try_from(bytes).expect("a length").to_be_bytes();
    let own = &mut fragment[ip..];
    if own[0] >> 4 == 4 {
        own[2..4].copy_from_slice(&length(IPV4 + to - from));
        own[4..6].copy_from_slice(&id.to_be_bytes());
        own[6..8].copy_from_slice(&(place | u16::from(more) << 13).to_be_bytes());
        own[10..12].fill(0);
        let sum = checksum(own);
        own[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        let next = std::mem::replace(&mut own[6], FRAGMENT);
        own[4..6].copy_from_slice(&length(8 + to - from));
        let [high, low] = (place << 3 | u16::from(more)).to_be_bytes();
        let [first, second] = id.to_be_bytes();
        fragment.extend([next, 0, high, low, 0xab, 0xcd, first, second]);
    }
    fragment.extend(&data[from..to]);
    fragment
}

fn header(frame: &[u8], ip: usize) -> usize {
    match frame[ip] >> 4 {
        4 => IPV4,
        _ => IPV6,
    }
}

/// Of an IPv4 header (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
