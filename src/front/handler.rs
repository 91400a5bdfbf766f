//! vhost-user's messages, as the `vhost` crate hands them over. Each is passed on to the
//! [`Session`]; what was not offered is refused.

use std::fs::File;
use std::io;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures,
};

use super::features::{OFFERED, PROTOCOL_OFFERED};
use super::memory::Region;
use super::session::{Session, SessionError};
use crate::engine::Lanes;
use crate::limits::MEMORY_SLOTS_MAX;

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        Error::ReqHandlerError(io::Error::other(error))
    }
}

/// The answer to what was not offered.
fn refused<T>() -> Result<T> {
    Err(Error::InvalidOperation("it was not offered"))
}

/// Maps the region of a message.
fn map(region: &VhostUserMemoryRegion, file: File) -> Result<Region> {
    let (guest, user) = (region.guest_phys_addr, region.user_addr);
    let region = Region::map(guest, user, region.memory_size, file, region.mmap_offset);
    Ok(region.map_err(SessionError::from)?)
}

impl<F: Lanes> VhostUserBackendReqHandlerMut for Session<F> {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    /// Deprecated, and understood in so many ways that vhost-user recommends to ignore it.
    fn reset_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(OFFERED)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        Ok(Session::set_features(self, features)?)
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        let regions: Result<Vec<Region>> =
            regions.iter().zip(files).map(|(region, file)| map(region, file)).collect();
        self.set_memory(regions?)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        Ok(self.set_ring_size(index, num)?)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        flags: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        log: u64,
    ) -> Result<()> {
        let log = flags.contains(VhostUserVringAddrFlags::VHOST_VRING_F_LOG).then_some(log);
        Ok(self.set_ring_addresses(index, descriptor, available, used, log)?)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        Ok(self.set_ring_base(index, base)?)
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let base = self.stop_ring(index)?;
        Ok(VhostUserVringState::new(index, base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        Ok(self.set_ring_kick(index.into(), fd)?)
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        Ok(self.set_ring_call(index.into(), fd)?)
    }

    fn set_vring_err(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        Ok(self.set_ring_err(index.into(), fd)?)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(PROTOCOL_OFFERED)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        Ok(Session::set_protocol_features(self, features)?)
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(self.queue_num())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        Ok(self.set_ring_enable(index, enable)?)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MEMORY_SLOTS_MAX)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        self.add_region(map(region, file)?)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let (guest, user) = (region.guest_phys_addr, region.user_addr);
        Ok(self.remove_region(guest, user, region.memory_size)?)
    }

    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        refused()
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        refused()
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        refused()
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        refused()
    }

    fn get_inflight_fd(&mut self, wanted: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        let (rings, ring_size) = (wanted.num_queues, wanted.queue_size);
        let (bytes, file) = self.make_region(rings, ring_size)?;
        Ok((VhostUserInflight::new(bytes, 0, rings, ring_size), file))
    }

    fn set_inflight_fd(&mut self, region: &VhostUserInflight, file: File) -> Result<()> {
        let VhostUserInflight { mmap_size, mmap_offset, num_queues, queue_size } = *region;
        Ok(self.set_region(num_queues, queue_size, file, mmap_offset, mmap_size)?)
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        refused()
    }

    fn check_device_state(&mut self) -> Result<()> {
        refused()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        refused()
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        Ok(Session::set_log_base(self, file, log.mmap_offset, log.mmap_size)?)
    }
}
