// Failures of the core as JavaScript errors.
#pragma once

#include <napi.h>

#include "core/outcome.h"

namespace phaul::binding {

// Error with `code` (errno name), `errno` (positive) and `syscall`.
Napi::Value errorOf(Napi::Env env, const Failure& failure);

// Leaves the error pending; to be returned at once.
Napi::Value throwFailure(Napi::Env env, const Failure& failure);

}  // namespace phaul::binding
