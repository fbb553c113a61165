//! From the kernel's messages to the agent's loop: a queue with an end. The task that reads never
//! waits, or messages would gather where nothing bounds them; so what does not fit is dropped, and
//! the loop is told to ask for everything again.

use tokio::sync::mpsc::{self, OwnedPermit, error::TrySendError};

use super::Change;

/// The loop is gone.
#[derive(Debug)]
pub(super) struct Closed;

/// The queue's entrance.
pub(super) struct Outlet {
    sender: mpsc::Sender<Change>,
    /// A place that is kept for [`Change::Lost`]. While there is none, the last that was handed on
    /// is a `Lost` that still waits, which covers whatever comes meanwhile.
    place: Option<OwnedPermit<Change>>,
}

impl Outlet {
    /// A queue for so many changes, and one that says that there were more.
    pub(super) fn new(changes: usize) -> (Self, mpsc::Receiver<Change>) {
        let (sender, receiver) = mpsc::channel(changes + 1);
        let place = sender.clone().try_reserve_owned().ok();
        (Self { sender, place }, receiver)
    }

    /// Hands a change on, or says that some were lost.
    pub(super) fn hand_on(&mut self, change: Change) -> Result<(), Closed> {
        if self.place.is_none() {
            self.place = match self.sender.clone().try_reserve_owned() {
                Ok(place) => Some(place),
                Err(TrySendError::Full(_)) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(Closed),
            };
        }
        match self.sender.try_send(change) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                if let Some(place) = self.place.take() {
                    place.send(Change::Lost);
                }
            }
            Err(TrySendError::Closed(_)) => return Err(Closed),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(receiver: &mut mpsc::Receiver<Change>) -> Vec<Change> {
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    #[test]
    fn what_does_not_fit_is_asked_for_again() {
        let (mut outlet, mut receiver) = Outlet::new(3);
        for ifindex in 0..100 {
            outlet.hand_on(Change::LinkGone(ifindex)).unwrap();
        }
        let kept = (0..3).map(Change::LinkGone);
        let expected: Vec<_> = kept.chain([Change::Lost]).collect();
        assert_eq!(drain(&mut receiver), expected);

        // One place is free only: it is kept, and the change is covered by a second word.
        for ifindex in 0..100 {
            outlet.hand_on(Change::LinkGone(ifindex)).unwrap();
        }
        assert_eq!(receiver.try_recv().unwrap(), Change::LinkGone(0));
        outlet.hand_on(Change::LinkGone(7)).unwrap();
        assert_eq!(drain(&mut receiver).last(), Some(&Change::Lost));

        outlet.hand_on(Change::LinkGone(8)).unwrap();
        assert_eq!(drain(&mut receiver), [Change::LinkGone(8)]);
        drop(receiver);
        assert!(outlet.hand_on(Change::LinkGone(9)).is_err());
    }
}
