// TCP_REPAIR (linux/tcp.h): the mode in which CRIU reads and rebuilds a connection; nothing is sent or answered in it.
#pragma once

#include "core/outcome.h"

namespace phaul {

// False for every descriptor that is not a TCP socket.
Outcome<bool> inTcpRepair(int fd);

// TCP_REPAIR_OFF: the kernel sends a window probe and the connection goes on. Needs CAP_NET_ADMIN in the
// user namespace that owns the socket's network namespace.
Done leaveTcpRepair(int fd);

}  // namespace phaul
