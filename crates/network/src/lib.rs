//! User-mode networking: NAT, DHCP, DNS and port publishing for an ordinary user.
