// Keeps copies of IP packets while nobody can receive them (packet(7)); taps see a packet before netfilter does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/fd.h"
#include "core/outcome.h"
#include "core/packet_filter.h"

namespace phaul {

struct Catch {
  // Each from its IP header on. Checksums may still be those of a sender that left them to its hardware.
  std::vector<std::vector<std::uint8_t>> packets;
  // Packets that passed the filter but found the buffer full, or were longer than an IP packet can be.
  std::uint32_t lost = 0;
};

class PacketCatcher {
 public:
  // Shut at first. `max_bytes` bounds the kernel's buffer, which counts its own overhead too.
  static Outcome<PacketCatcher> on(int interface_index, int max_bytes);

  // ENOMEM: more addresses than a filter of net.core.optmem_max bytes holds (16 an IPv4 address, 72 an IPv6 one).
  Done open(const AddressSet& addresses);
  Done shut();
  // What has been caught so far; never blocks.
  Outcome<Catch> drain();

 private:
  PacketCatcher(UniqueFd socket, std::size_t max_bytes) : socket_(std::move(socket)), max_bytes_(max_bytes) {}

  UniqueFd socket_;
  std::size_t max_bytes_;
};

// Length of the IPv4 or IPv6 packet at the start of `data` by its header, 0 if it is none or not whole.
// What lies behind it is Ethernet padding.
std::size_t ipPacketLength(const std::uint8_t* data, std::size_t size);

}  // namespace phaul
