//! Files of `torch.save`: a zip of one pickle and the tensors' storages.

mod archive;
mod file;
mod tensor;
mod values;

pub(super) use file::PthFile;
