//! What a device is at one moment: for snapshots.
//!
//! The registers of a device are plain data, and its [`State`] is those, by name. It is taken, and put into another device, while both are paused; what lies in
//! guest memory, behind a backend or on its way through the host is no part of it.
//!
//! Nobody is trusted that a state comes from: what no device can have is a [`StateError`], and the device may be in any valid state then.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Registers by name. Of a device that has none: null.
pub type State = serde_json::Value;

/// A state that no device of this kind, or not this one, can be in: why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StateError(pub String);

/// The state of a device that has none.
pub const NOTHING: State = State::Null;

/// `registers` by name.
#[must_use]
pub fn save(registers: &impl Serialize) -> State {
    // Names are texts, and numbers numbers.
    serde_json::to_value(registers).unwrap_or_else(|error| panic!("plain data can always be saved: {error}"))
}

/// What [`save`] has made of something.
///
/// # Errors
/// A name is missing or unknown, or has a value that it cannot have.
pub fn read<T: DeserializeOwned>(state: &State) -> Result<T, StateError> {
    T::deserialize(state).map_err(|error| StateError(error.to_string()))
}

/// Takes the state of a device that has none.
///
/// # Errors
/// It is another device's.
pub fn read_nothing(state: &State) -> Result<(), StateError> {
    ensure(state.is_null(), "a device has registers here that none are known of")
}

/// An error if something does not hold.
pub(crate) fn ensure(holds: bool, what: &str) -> Result<(), StateError> {
    if holds { Ok(()) } else { Err(StateError(what.into())) }
}

/// Long arrays, for `#[serde(with)]`.
pub(crate) mod array {
    use super::*;

    pub(crate) fn serialize<T: Serialize, S: Serializer, const N: usize>(
        array: &[T; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        array.as_slice().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[T; N], D::Error> {
        let items = Vec::<T>::deserialize(deserializer)?;
        let count = items.len();
        items.try_into().map_err(|_| serde::de::Error::invalid_length(count, &"as many items as the registers have"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Registers {
        #[serde(with = "array")]
        bytes: [u8; 40],
        on: bool,
    }

    #[test]
    fn registers_come_back_and_others_do_not() {
        let registers = Registers { bytes: [7; 40], on: true };
        let state = save(&registers);
        assert_eq!(read(&state), Ok(registers));
        for (name, value) in [("bytes", State::from(vec![1, 2])), ("on", 3.into()), ("off", true.into())] {
            let mut wrong = state.clone();
            wrong[name] = value;
            let error = read::<Registers>(&wrong).unwrap_err();
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
        assert!(read_nothing(&NOTHING).is_ok() && read_nothing(&state).is_err());
    }
}

#[cfg(test)]
#[path = "tests/state.rs"]
mod hostile;
