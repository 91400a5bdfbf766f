//! Operation codes and service actions (SPC-5 table 142 and annex, SBC-4 table 31).

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: u8 = $value;)*
    };
}

codes! {
    /// TEST UNIT READY (SPC-5).
    TEST_UNIT_READY = 0x00;
    /// REQUEST SENSE (SPC-5).
    REQUEST_SENSE = 0x03;
    /// FORMAT UNIT (SBC-4).
    FORMAT_UNIT = 0x04;
    /// REASSIGN BLOCKS (SBC-4).
    REASSIGN_BLOCKS = 0x07;
    /// READ(6) (SBC-3, obsolete since).
    READ_6 = 0x08;
    /// WRITE(6) (SBC-3, obsolete since).
    WRITE_6 = 0x0A;
    /// INQUIRY (SPC-5).
    INQUIRY = 0x12;
    /// MODE SELECT(6) (SPC-5).
    MODE_SELECT_6 = 0x15;
    /// RESERVE(6) (SPC-2).
    RESERVE_6 = 0x16;
    /// RELEASE(6) (SPC-2).
    RELEASE_6 = 0x17;
    /// MODE SENSE(6) (SPC-5).
    MODE_SENSE_6 = 0x1A;
    /// START STOP UNIT (SBC-4).
    START_STOP_UNIT = 0x1B;
    /// RECEIVE DIAGNOSTIC RESULTS (SPC-5).
    RECEIVE_DIAGNOSTIC_RESULTS = 0x1C;
    /// SEND DIAGNOSTIC (SPC-5).
    SEND_DIAGNOSTIC = 0x1D;
    /// PREVENT ALLOW MEDIUM REMOVAL (SBC-3).
    PREVENT_ALLOW_MEDIUM_REMOVAL = 0x1E;
    /// READ CAPACITY(10) (SBC-4).
    READ_CAPACITY_10 = 0x25;
    /// READ(10) (SBC-4).
    READ_10 = 0x28;
    /// WRITE(10) (SBC-4).
    WRITE_10 = 0x2A;
    /// WRITE AND VERIFY(10) (SBC-4).
    WRITE_AND_VERIFY_10 = 0x2E;
    /// VERIFY(10) (SBC-4).
    VERIFY_10 = 0x2F;
    /// PRE-FETCH(10) (SBC-4).
    PRE_FETCH_10 = 0x34;
    /// SYNCHRONIZE CACHE(10) (SBC-4).
    SYNCHRONIZE_CACHE_10 = 0x35;
    /// READ DEFECT DATA(10) (SBC-4).
    READ_DEFECT_DATA_10 = 0x37;
    /// WRITE BUFFER (SPC-5).
    WRITE_BUFFER = 0x3B;
    /// READ BUFFER(10) (SPC-5).
    READ_BUFFER_10 = 0x3C;
    /// WRITE SAME(10) (SBC-4).
    WRITE_SAME_10 = 0x41;
    /// UNMAP (SBC-4).
    UNMAP = 0x42;
    /// SANITIZE (SBC-4).
    SANITIZE = 0x48;
    /// LOG SELECT (SPC-5).
    LOG_SELECT = 0x4C;
    /// LOG SENSE (SPC-5).
    LOG_SENSE = 0x4D;
    /// MODE SELECT(10) (SPC-5).
    MODE_SELECT_10 = 0x55;
    /// RESERVE(10) (SPC-2).
    RESERVE_10 = 0x56;
    /// RELEASE(10) (SPC-2).
    RELEASE_10 = 0x57;
    /// MODE SENSE(10) (SPC-5).
    MODE_SENSE_10 = 0x5A;
    /// PERSISTENT RESERVE IN (SPC-5).
    PERSISTENT_RESERVE_IN = 0x5E;
    /// PERSISTENT RESERVE OUT (SPC-5).
    PERSISTENT_RESERVE_OUT = 0x5F;
    /// Variable length CDB (SPC-5 4.2.3); the service action stands in bytes 8 and 9.
    VARIABLE_LENGTH = 0x7F;
    /// Third-party copy out: EXTENDED COPY, POPULATE TOKEN, WRITE USING TOKEN (SPC-5, SBC-4).
    THIRD_PARTY_COPY_OUT = 0x83;
    /// Third-party copy in: RECEIVE COPY and ROD TOKEN INFORMATION (SPC-5).
    THIRD_PARTY_COPY_IN = 0x84;
    /// READ(16) (SBC-4).
    READ_16 = 0x88;
    /// COMPARE AND WRITE (SBC-4).
    COMPARE_AND_WRITE = 0x89;
    /// WRITE(16) (SBC-4).
    WRITE_16 = 0x8A;
    /// ORWRITE(16) (SBC-4).
    ORWRITE_16 = 0x8B;
    /// WRITE AND VERIFY(16) (SBC-4).
    WRITE_AND_VERIFY_16 = 0x8E;
    /// VERIFY(16) (SBC-4).
    VERIFY_16 = 0x8F;
    /// PRE-FETCH(16) (SBC-4).
    PRE_FETCH_16 = 0x90;
    /// SYNCHRONIZE CACHE(16) (SBC-4).
    SYNCHRONIZE_CACHE_16 = 0x91;
    /// WRITE SAME(16) (SBC-4).
    WRITE_SAME_16 = 0x93;
    /// WRITE ATOMIC(16) (SBC-4).
    WRITE_ATOMIC_16 = 0x9C;
    /// SERVICE ACTION IN(16): READ CAPACITY(16), GET LBA STATUS (SBC-4).
    SERVICE_ACTION_IN_16 = 0x9E;
    /// REPORT LUNS (SPC-5).
    REPORT_LUNS = 0xA0;
    /// SECURITY PROTOCOL IN (SPC-5).
    SECURITY_PROTOCOL_IN = 0xA2;
    /// MAINTENANCE IN: REPORT TARGET PORT GROUPS, REPORT SUPPORTED OPERATION CODES (SPC-5).
    MAINTENANCE_IN = 0xA3;
    /// MAINTENANCE OUT: SET TARGET PORT GROUPS (SPC-5).
    MAINTENANCE_OUT = 0xA4;
    /// READ(12) (SBC-4).
    READ_12 = 0xA8;
    /// WRITE(12) (SBC-4).
    WRITE_12 = 0xAA;
    /// WRITE AND VERIFY(12) (SBC-4).
    WRITE_AND_VERIFY_12 = 0xAE;
    /// VERIFY(12) (SBC-4).
    VERIFY_12 = 0xAF;
    /// SECURITY PROTOCOL OUT (SPC-5).
    SECURITY_PROTOCOL_OUT = 0xB5;
    /// READ DEFECT DATA(12) (SBC-4).
    READ_DEFECT_DATA_12 = 0xB7;
}

/// True for READ: a command that brings blocks and changes nothing.
pub fn is_read(opcode: u8) -> bool {
    matches!(opcode, READ_6 | READ_10 | READ_12 | READ_16)
}

/// True for WRITE: a command that stores blocks as they come.
pub fn is_write(opcode: u8) -> bool {
    matches!(opcode, WRITE_6 | WRITE_10 | WRITE_12 | WRITE_16)
}

/// Service actions of [`SERVICE_ACTION_IN_16`], [`MAINTENANCE_IN`] and [`MAINTENANCE_OUT`].
pub mod service_action {
    codes! {
        /// READ CAPACITY(16) (SBC-4).
        READ_CAPACITY_16 = 0x10;
        /// GET LBA STATUS(16) (SBC-4).
        GET_LBA_STATUS = 0x12;
        /// REPORT IDENTIFYING INFORMATION (SPC-5).
        REPORT_IDENTIFYING_INFORMATION = 0x05;
        /// REPORT TARGET PORT GROUPS (SPC-5).
        REPORT_TARGET_PORT_GROUPS = 0x0A;
        /// REPORT SUPPORTED OPERATION CODES (SPC-5).
        REPORT_SUPPORTED_OPERATION_CODES = 0x0C;
        /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-5).
        REPORT_SUPPORTED_TASK_MANAGEMENT_FUNCTIONS = 0x0D;
        /// REPORT TIMESTAMP (SPC-5).
        REPORT_TIMESTAMP = 0x0F;
        /// SET TARGET PORT GROUPS (SPC-5).
        SET_TARGET_PORT_GROUPS = 0x0A;
    }
}
