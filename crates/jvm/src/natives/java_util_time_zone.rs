//! `java.util.TimeZone`: the zone of the host.

use std::path::Path;

use super::support::natives;
use crate::interpreter::Arguments;
use crate::services::environment;
use crate::strings;
use crate::thread::{Result, Thread};

/// The name of a zone from where its file is.
fn zone_of(file: &Path) -> Option<String> {
    let text = file.to_str()?;
    text.split_once("/zoneinfo/").map(|(_, zone)| zone.trim_start_matches("posix/").to_owned())
}

/// The name of the host's zone: of TZ, else of the file that the host reads.
fn zone() -> Option<String> {
    let told = environment::variables().into_iter().find(|(name, _)| name == "TZ");
    if let Some(told) = told.and_then(|(_, value)| value.into_string().ok()).filter(|value| !value.is_empty()) {
        let told = told.trim_start_matches(':');
        return Some(zone_of(Path::new(told)).unwrap_or_else(|| told.to_owned()));
    }
    let link = std::fs::read_link("/etc/localtime").ok();
    link.and_then(|file| zone_of(&file)).or_else(|| {
        let text = std::fs::read_to_string("/etc/timezone").ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    })
}

fn answer(thread: &mut Thread, _: Arguments) -> Result<u64> {
    match zone() {
        Some(zone) => Ok(strings::new(thread, &zone)?.slot()),
        None => Ok(0),
    }
}

natives! { "java/util/TimeZone":
    "getSystemTimeZoneID" "(Ljava/lang/String;)Ljava/lang/String;" => answer;
    // Asked for if the zone has no name, which is universal time then.
    "getSystemGMTOffsetID" "()Ljava/lang/String;" => |thread, _| Ok(strings::new(thread, "GMT")?.slot());
}
