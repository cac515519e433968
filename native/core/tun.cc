#include "core/tun.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

namespace phaul {
namespace {

Done setUp(ifreq request) {
  const UniqueFd any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!any) return Failure::last("socket");
  if (ioctl(any.get(), SIOCGIFFLAGS, &request) != 0) return Failure::last("ioctl");
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (ioctl(any.get(), SIOCSIFFLAGS, &request) != 0) return Failure::last("ioctl");
  return Nothing{};
}

}  // namespace

Outcome<Tun> openTunInterface(std::string_view pattern) {
  ifreq request = {};
  if (pattern.size() >= sizeof request.ifr_name) return Failure{ENAMETOOLONG, "ioctl"};
  std::memcpy(request.ifr_name, pattern.data(), pattern.size());
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  UniqueFd fd(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!fd) return Failure::last("open");
  if (ioctl(fd.get(), TUNSETIFF, &request) != 0) return Failure::last("ioctl");
  const Done up = setUp(request);
  if (!up) return up.failure();
  return Tun{std::move(fd), std::string(request.ifr_name)};
}

}  // namespace phaul
