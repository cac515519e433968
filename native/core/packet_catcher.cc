#include "core/packet_catcher.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>

#include <algorithm>
#include <climits>

namespace phaul {
namespace {

constexpr std::size_t v6_header = 40;
// The greatest packet that either header can describe.
constexpr std::size_t max_packet = v6_header + 65535;

Done attach(int fd, std::vector<sock_filter> filter) {
  if (filter.size() > BPF_MAXINSNS) return Failure{E2BIG, "setsockopt"};
  const sock_fprog program = {static_cast<unsigned short>(filter.size()), filter.data()};
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0) return Failure::last("setsockopt");
  return Nothing{};
}

// Reading it resets the counters (packet(7)).
Outcome<std::uint32_t> takeDrops(int fd) {
  tpacket_stats statistics = {};
  socklen_t size = sizeof statistics;
  if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &statistics, &size) != 0) return Failure::last("getsockopt");
  return statistics.tp_drops;
}

}  // namespace

std::size_t ipPacketLength(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  std::size_t length = 0;
  if (data[0] >> 4 == 4 && size >= 20) length = static_cast<std::size_t>(data[2]) << 8 | data[3];
  if (data[0] >> 4 == 6 && size >= v6_header) length = v6_header + (static_cast<std::size_t>(data[4]) << 8 | data[5]);
  return length <= size ? length : 0;
}

Outcome<PacketCatcher> PacketCatcher::on(int interface_index, int max_bytes) {
  // Protocol 0: nothing arrives before the filter is in place and the socket is bound.
  UniqueFd fd(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Failure::last("socket");
  const Done dropping = attach(fd.get(), dropAllFilter());
  if (!dropping) return dropping.failure();
  // The kernel doubles the value for its bookkeeping (socket(7)).
  const int buffer = std::min(max_bytes, INT_MAX / 2);
  if (setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) != 0) {
    return Failure::last("setsockopt");
  }
  sockaddr_ll address = {};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = interface_index;
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return Failure::last("bind");
  return PacketCatcher(std::move(fd), static_cast<std::size_t>(std::max(max_bytes, 0)));
}

Done PacketCatcher::open(const AddressSet& addresses) { return attach(socket_.get(), destinationFilter(addresses)); }

Done PacketCatcher::shut() { return attach(socket_.get(), dropAllFilter()); }

Outcome<Catch> PacketCatcher::drain() {
  Catch taken;
  std::vector<std::uint8_t> buffer(max_packet);
  // Bounded, or a flood on an open filter would never let go.
  for (std::size_t bytes = 0; bytes <= max_bytes_;) {
    const ssize_t got = recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT | MSG_TRUNC);
    if (got < 0) {
      // ENETDOWN is told once when the interface goes down; packets caught before it are still there.
      if (errno == EINTR || errno == ENETDOWN) continue;
      if (errno == EAGAIN || !taken.packets.empty()) break;
      return Failure::last("recv");
    }
    const auto size = static_cast<std::size_t>(got);
    const std::size_t length = size > buffer.size() ? 0 : ipPacketLength(buffer.data(), size);
    if (length == 0) {
      ++taken.lost;
      continue;
    }
    taken.packets.emplace_back(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(length));
    bytes += length;
  }
  Outcome<std::uint32_t> drops = takeDrops(socket_.get());
  if (drops) taken.lost += *drops;
  return taken;
}

}  // namespace phaul
