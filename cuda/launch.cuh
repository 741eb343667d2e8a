// launch: one kernel launch, with what Launch says about where and how.
#pragma once
#include "launch.h"

template <class... Parameters, class... Arguments>
cudaError_t launch_kernel(const Launch *l, void (*kernel)(Parameters...), dim3 blocks, unsigned threads,
                          size_t shared_bytes, Arguments... arguments) {
    cudaLaunchAttribute dependent = {};
    dependent.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    dependent.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = blocks, config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes, config.stream = l->stream;
    config.attrs = &dependent, config.numAttrs = l->dependent ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}
