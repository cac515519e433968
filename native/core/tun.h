// A TUN interface: an IP packet written to it arrives as if from a link (Documentation/networking/tuntap.rst).
#pragma once

#include <string>
#include <string_view>

#include "core/fd.h"
#include "core/outcome.h"

namespace phaul {

struct Tun {
  UniqueFd fd;
  std::string name;
};

// IFF_NO_PI: bare IP packets. Set up; without addresses. It vanishes with its last descriptor.
// `pattern`: at most 15 bytes; the kernel fills in `%d`.
Outcome<Tun> openTunInterface(std::string_view pattern);

}  // namespace phaul
