// Included before the bindings: points the four calls they make into torch's CUDA runtime at the emulator's.
#pragma once
#define aoti_torch_create_device_guard emulated_create_device_guard
#define aoti_torch_delete_device_guard emulated_delete_device_guard
#define aoti_torch_device_guard_set_index emulated_device_guard_set_index
#define aoti_torch_get_current_cuda_stream emulated_get_current_cuda_stream
