#include "core/tcp_repair.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace phaul {

Outcome<bool> inTcpRepair(int fd) {
  int protocol = 0;
  socklen_t size = sizeof protocol;
  // Asked first: other protocols give these option numbers meanings of their own.
  if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0) {
    if (errno == ENOTSOCK) return false;
    return Failure::last("getsockopt");
  }
  int domain = 0;
  size = sizeof domain;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) return Failure::last("getsockopt");
  if (protocol != IPPROTO_TCP || (domain != AF_INET && domain != AF_INET6)) return false;

  int repair = 0;
  size = sizeof repair;
  if (getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &repair, &size) != 0) {
    // A raw socket of protocol TCP.
    if (errno == EOPNOTSUPP || errno == ENOPROTOOPT) return false;
    return Failure::last("getsockopt");
  }
  return repair != 0;
}

Done leaveTcpRepair(int fd) {
  const int off = 0;
  if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof off) != 0) return Failure::last("setsockopt");
  return Nothing{};
}

}  // namespace phaul
