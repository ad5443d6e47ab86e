//! The one value that candle sees of a step, on whichever device the step is.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{CpuStorage, CudaStorage, DType, Device, MetalStorage, Result, Shape, Storage, Tensor};

/// A token of a device.
pub(super) fn of(device: &Device) -> Result<Tensor> {
    Tensor::zeros((), DType::F32, device)
}

/// What makes candle come to a node: the value does not matter.
pub(super) fn knock(token: &Tensor) -> Result<Option<Tensor>> {
    token.zeros_like().map(Some)
}

/// A token as an op of candle's graph makes it.
pub(super) trait Token: Sized {
    /// On the device where this is.
    fn beside(&self) -> Result<(Self, Shape)>;
}

impl<B: BackendStorage> Token for B
where
    B::Device: BackendDevice<Storage = B>,
{
    fn beside(&self) -> Result<(Self, Shape)> {
        let shape = Shape::from(());
        Ok((self.device().zeros_impl(&shape, DType::F32)?, shape))
    }
}

/// One device's kind of storage.
pub(super) trait OneDevice: Sized {
    /// Out of any device's.
    fn of(storage: Storage) -> Option<Self>;
}

macro_rules! one_device {
    ($($storage:ident: $variant:ident),*) => {
        $(impl OneDevice for $storage {
            fn of(storage: Storage) -> Option<Self> {
                if let Storage::$variant(storage) = storage { Some(storage) } else { None }
            }
        })*
    };
}

one_device!(CpuStorage: Cpu, CudaStorage: Cuda, MetalStorage: Metal);

/// An op's forward passes, one for each device and all alike.
macro_rules! on_every_device {
    (|$this:ident, $($x:ident: $layout:ident),*| $made:expr) => {
        $crate::ops::graph::on_every_device!(
            ($this, $made, [$($x: $layout),*])
            cpu_fwd: candle_core::CpuStorage, cuda_fwd: candle_core::CudaStorage, metal_fwd: candle_core::MetalStorage
        );
    };
    ($shared:tt $($pass:ident: $storage:ty),*) => {
        $($crate::ops::graph::on_every_device!(@one $shared $pass $storage);)*
    };
    (@one ($this:ident, $made:expr, [$($x:ident: $layout:ident),*]) $pass:ident $storage:ty) => {
        fn $pass(
            &self,
            $($x: &$storage, $layout: &candle_core::Layout),*
        ) -> candle_core::Result<($storage, candle_core::Shape)> {
            let $this = self;
            $made
        }
    };
}
pub(in crate::ops) use on_every_device;
