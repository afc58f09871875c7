//! As much of DNS messages (RFC 1035, section 4) as a forwarder needs: the question, and answers of addresses.

use std::net::IpAddr;

/// Bytes of a message's header.
pub(super) const HEADER: usize = 12;
/// Query types and the class that we can answer ourselves.
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
/// How long our own answers may be kept.
const TTL_S: u32 = 60;
/// The longest name (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;
const LABEL_MAX: u8 = 63;

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseCode {
    NoError = 0,
    ServerFailure = 2,
    Refused = 5,
}

/// Which addresses a question is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A question for addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// The name in lower case, labels joined by dots, without the last.
    pub(super) name: String,
    pub(super) family: Family,
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// The message's identifier.
pub(super) fn identifier(message: &[u8]) -> Option<u16> {
    word(message, 0)
}

/// Replaces the message's identifier.
pub(super) fn set_identifier(message: &mut [u8], identifier: u16) {
    if let Some(bytes) = message.get_mut(..2) {
        bytes.copy_from_slice(&identifier.to_be_bytes());
    }
}

/// Whether the message is a query with a whole header.
pub(super) fn is_query(message: &[u8]) -> bool {
    message.len() >= HEADER && message[2] & 0x80 == 0
}

/// Whether the message is a response with a whole header.
pub(super) fn is_response(message: &[u8]) -> bool {
    message.len() >= HEADER && message[2] & 0x80 != 0
}

/// Whether the response says that its server could not, or would not, find out.
pub(super) fn is_failure(message: &[u8]) -> bool {
    let failures = [ResponseCode::ServerFailure as u8, ResponseCode::Refused as u8];
    message.get(3).is_some_and(|byte| failures.contains(&(byte & 15)))
}

/// Where the first question ends.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = *message.get(at)?;
        if length > LABEL_MAX {
            return None;
        }
        at += 1 + usize::from(length);
        if length == 0 {
            let end = at + 4;
            return (end <= message.len()).then_some(end);
        }
    }
}

/// The message's question if it is a standard query for one name's addresses.
pub(super) fn question(message: &[u8]) -> Option<Question> {
    let opcode = message.get(2)? >> 3 & 15;
    if !is_query(message) || opcode != 0 || word(message, 4)? != 1 {
        return None;
    }
    let end = question_end(message)?;
    let family = match (word(message, end - 4)?, word(message, end - 2)?) {
        (TYPE_A, CLASS_IN) => Family::V4,
        (TYPE_AAAA, CLASS_IN) => Family::V6,
        _ => return None,
    };
    let mut name = String::new();
    let mut at = HEADER;
    while message[at] != 0 {
        let length = usize::from(message[at]);
        let label = &message[at + 1..=at + length];
        if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)) {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        at += 1 + length;
    }
    (!name.is_empty() && name.len() <= NAME_MAX).then_some(Question { name, family })
}

/// The response to `query` with these addresses, as many of them as fit a datagram that every client takes. Addresses of
/// another family than the question's are left out.
pub(super) fn response(query: &[u8], code: ResponseCode, addresses: &[IpAddr]) -> Vec<u8> {
    let end = question_end(query).filter(|_| word(query, 4) == Some(1));
    let mut message = query[..end.unwrap_or(HEADER.min(query.len()))].to_vec();
    message.resize(message.len().max(HEADER), 0);
    // A response; opcode and "recursion desired" as asked; recursion available.
    message[2] = 0x80 | query.get(2).copied().unwrap_or(0) & 0x79;
    message[3] = 0x80 | code as u8;
    message[4..HEADER].fill(0);
    let family = question(query).map(|question| question.family);
    let Some(family) = family else {
        message[5] = u8::from(end.is_some());
        return message;
    };
    message[5] = 1;
    let kind = if family == Family::V4 { TYPE_A } else { TYPE_AAAA };
    let mut count = 0u8;
    for address in addresses.iter().filter(|address| Family::of(address) == family).take(12) {
        // The name is a pointer to the question's.
        message.extend((0xc000 | 12u16).to_be_bytes());
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message.extend(TTL_S.to_be_bytes());
        match address {
            IpAddr::V4(address) => {
                message.extend(4u16.to_be_bytes());
                message.extend(address.octets());
            }
            IpAddr::V6(address) => {
                message.extend(16u16.to_be_bytes());
                message.extend(address.octets());
            }
        }
        count += 1;
    }
    message[7] = count;
    message
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A query for `name`'s records of `kind`.
    pub(in crate::dns) fn query(identifier: u16, name: &str, kind: u16) -> Vec<u8> {
        let mut message = identifier.to_be_bytes().to_vec();
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message
    }

    #[test]
    fn questions() {
        let v4 = Question { name: "deb.example.org".into(), family: Family::V4 };
        assert_eq!(question(&query(7, "Deb.Example.org", 1)), Some(v4));
        assert_eq!(question(&query(7, "a", 28)).unwrap().family, Family::V6);
        assert_eq!(question(&query(7, "a", 15)), None, "not for addresses");
        assert_eq!(question(&query(7, "a b", 1)), None, "no host has such a name");
        let whole = query(7, "deb.example.org", 1);
        for length in 0..whole.len() {
            assert_eq!(question(&whole[..length]), None);
        }
    }

    #[test]
    fn responses() {
        let addresses = ["192.0.2.1".parse().unwrap(), "::1".parse().unwrap()];
        let asked = query(7, "a", 1);
        let answered = response(&asked, ResponseCode::NoError, &addresses);
        let packet = smoltcp::wire::DnsPacket::new_checked(&answered[..]).unwrap();
        assert_eq!((packet.transaction_id(), packet.answer_record_count()), (7, 1));
        let (rest, _) = smoltcp::wire::DnsQuestion::parse(packet.payload()).unwrap();
        let (rest, record) = smoltcp::wire::DnsRecord::parse(rest).unwrap();
        assert!(rest.is_empty());
        let expected = smoltcp::wire::DnsRecordData::A("192.0.2.1".parse().unwrap());
        assert_eq!((record.data, record.ttl), (expected, TTL_S));
        assert!(is_failure(&response(&asked, ResponseCode::ServerFailure, &[])));
        assert!(!is_failure(&answered));
    }

    proptest! {
        #[test]
        fn rubbish_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = question(&bytes);
            let answer = response(&bytes, ResponseCode::Refused, &["192.0.2.1".parse().unwrap()]);
            prop_assert!(is_response(&answer));
        }
    }
}
