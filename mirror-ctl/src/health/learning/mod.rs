//! Learning in place: what the agent judged is recorded, models are trained on that, and a challenger has to prove itself
//! before it is listened to.
//!
//! [`fate`] what the agent saw become of an instance; [`rotation`] and [`journal`] the recording that it keeps;
//! [`onsets`] when a recorded instance began to fail; [`lessons`] rows to learn from, and a model of them; [`recorded`] the
//! same from recordings. [`contest`] champion and challenger side by side; [`promotion`] who takes whose place; [`seats`] the
//! files of both; [`referee`] holds judgements against what came; [`drift`] whether what a model is given still looks like what it was trained on.

pub mod contest;
pub mod drift;
pub mod fate;
pub mod journal;
pub mod lessons;
pub mod onsets;
pub mod promotion;
pub mod recorded;
pub mod referee;
pub mod rotation;
pub mod seats;
