// One Ethernet frame onto a link (packet(7)).
#pragma once

#include <cstdint>
#include <span>

#include "core/outcome.h"

namespace phaul {

// `frame` starts with the destination's hardware address. ENXIO: no such interface; ENETDOWN: it is down.
Done sendRawFrame(int interface_index, std::span<const std::uint8_t> frame);

}  // namespace phaul
