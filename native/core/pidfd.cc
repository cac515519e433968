#include "core/pidfd.h"

#include <fcntl.h>
#include <sys/syscall.h>

namespace phaul {

Outcome<UniqueFd> openPidfd(pid_t pid) {
  const long fd = syscall(SYS_pidfd_open, pid, 0);
  if (fd < 0) return Failure::last("pidfd_open");
  return UniqueFd(static_cast<int>(fd));
}

Done signalPidfd(int pidfd, int signal) {
  if (syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0) != 0) return Failure::last("pidfd_send_signal");
  return Nothing{};
}

Outcome<UniqueFd> duplicateFdOf(int pidfd, int target_fd) {
  const long fd = syscall(SYS_pidfd_getfd, pidfd, target_fd, 0);
  if (fd < 0) return Failure::last("pidfd_getfd");
  return UniqueFd(static_cast<int>(fd));
}

Outcome<UniqueFd> duplicateFd(int fd) {
  const int duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (duplicate < 0) return Failure::last("fcntl");
  return UniqueFd(duplicate);
}

Done appendAlways(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_APPEND) != 0) return Failure::last("fcntl");
  return Nothing{};
}

}  // namespace phaul
