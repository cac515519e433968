// Classic BPF programs of the packet catcher (Linux: Documentation/networking/filter.rst).
#pragma once

#include <linux/filter.h>

#include <array>
#include <cstdint>
#include <vector>

namespace phaul {

struct AddressSet {
  std::vector<std::array<std::uint8_t, 4>> v4;
  std::vector<std::array<std::uint8_t, 16>> v6;
};

// Lets nothing pass.
std::vector<sock_filter> dropAllFilter();

// For an AF_PACKET SOCK_DGRAM socket: lets incoming IPv4 and IPv6 packets to one of the addresses pass, whole.
std::vector<sock_filter> destinationFilter(const AddressSet& addresses);

}  // namespace phaul
