// Whole-file locks that belong to the open file description (flock(2)).
#pragma once

#include "core/outcome.h"

namespace phaul {

// False when another open file description holds the lock. Freed when the last duplicate of `fd` is closed.
Outcome<bool> tryLockFile(int fd);

}  // namespace phaul
