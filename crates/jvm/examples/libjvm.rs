//! `libjvm.so`: the Java virtual machine for programs that start one themselves, by the functions of [`jvm::embedding`].
//!
//! Such a program links with `-ljvm`, and finds this library in place of the JDK's by `LD_LIBRARY_PATH`. The class library is found as the command `java`
//! does, or, if this file is put into `lib/server` of a JDK 17, there.

use jvm as _;
