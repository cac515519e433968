// Process descriptors (pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2)).
#pragma once

#include <sys/types.h>

#include "core/fd.h"
#include "core/outcome.h"

namespace phaul {

// CLOEXEC. ESRCH: no such process, or already reaped.
Outcome<UniqueFd> openPidfd(pid_t pid);

// ESRCH: the process has been reaped.
Done signalPidfd(int pidfd, int signal);

// A duplicate (CLOEXEC) of another process's descriptor; needs PTRACE_MODE_ATTACH_REALCREDS on it.
Outcome<UniqueFd> duplicateFdOf(int pidfd, int target_fd);

// A duplicate (CLOEXEC) of an own descriptor.
Outcome<UniqueFd> duplicateFd(int fd);

// Adds O_APPEND to the flags of an open file, for all who have it open (fcntl(2), F_SETFL).
Done appendAlways(int fd);

}  // namespace phaul
