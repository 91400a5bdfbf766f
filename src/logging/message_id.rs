//! MESSAGE_ID of the lines that programs may wait for (`journalctl MESSAGE_ID=...`). A promise: a
//! message keeps its id whatever its words become.

/// A path has changed its state: PATH, FROM, TO, REASON.
pub const PATH_STATE: &str = "c863bc491bcd42aaaa99f6fde8f61234";
/// The LUN has changed its state: FROM, TO, REASON.
pub const LUN_STATE: &str = "33c68365aba04a369b57dd2a77b457d9";
/// Commands go over other groups of paths: FROM, TO.
pub const GROUPS: &str = "192e5358789f4a4e904b629e392bd69e";
/// The guest is told of another size: BLOCKS.
pub const RESIZED: &str = "224c4778c2cf41a4b07fd3b47b0a444d";
/// The array denies the logical unit over every path.
pub const GONE: &str = "9b714837ed4d435aad627330316cd04f";
/// A front end has come or gone: TO is `connected` or `gone`.
pub const FRONTEND: &str = "adc4426dde47465ba8900706654e4e29";
/// The configuration was read again, or could not be: TO is `reloaded` or `kept`, REASON says what
/// has changed or what is wrong.
pub const RELOAD: &str = "19cf3ef1969c4f308453277a2ba75265";
