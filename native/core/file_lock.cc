#include "core/file_lock.h"

#include <sys/file.h>

namespace phaul {

Outcome<bool> tryLockFile(int fd) {
  for (;;) {
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
    if (errno == EWOULDBLOCK) return false;
    if (errno != EINTR) return Failure::last("flock");
  }
}

}  // namespace phaul
