//! Where a function of the host is, as `lspci` writes it.

use std::fmt;
use std::str::FromStr;

/// Domain, bus, device and function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostAddress {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}

/// Not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no PCI address such as 0000:01:00.0; `lspci -D` lists those of this host")]
pub struct ParseAddressError(String);

impl FromStr for HostAddress {
    type Err = ParseAddressError;

    /// `[DOMAIN:]BUS:DEVICE.FUNCTION`, in hexadecimal.
    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let parse = || {
            let (front, function) = text.rsplit_once('.')?;
            let mut parts = front.rsplit(':');
            let (device, bus) = (parts.next()?, parts.next()?);
            let domain = parts.next().unwrap_or("0");
            let number = |digits: &str| {
                let is_hex = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                is_hex.then(|| u16::from_str_radix(digits, 16).ok())?
            };
            let small =
                |digits: &str, limit: u8| number(digits).and_then(|n| u8::try_from(n).ok()).filter(|n| *n <= limit);
            let address = Self {
                domain: number(domain)?,
                bus: small(bus, 0xff)?,
                device: small(device, 31)?,
                function: small(function, 7)?,
            };
            parts.next().is_none().then_some(address)
        };
        parse().ok_or_else(|| ParseAddressError(text.into()))
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_lspci_writes_them() {
        let parse = |text: &str| text.parse::<HostAddress>().map(|address| address.to_string());
        assert_eq!(parse("0000:03:1f.7").unwrap(), "0000:03:1f.7");
        assert_eq!(parse("a:0.1").unwrap(), "0000:0a:00.1");
        for wrong in ["", "1", "1:2", "1:20.0", "1:2.8", "1:2:3:4.0", "100:0.0", "+1:2.0", "x:0.0", ":0.0", "1:0."] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
