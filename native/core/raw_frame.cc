#include "core/raw_frame.h"

#include <linux/if_packet.h>
#include <sys/socket.h>

#include "core/fd.h"

namespace phaul {

Done sendRawFrame(int interface_index, std::span<const std::uint8_t> frame) {
  // Kept open: closing a packet socket waits for RCU, 10 ms and more, which would be between the clients and their
  // answers. So it belongs to the network namespace of its first use. Protocol 0: the socket only sends.
  static thread_local UniqueFd fd;
  if (!fd) fd = UniqueFd(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!fd) return Failure::last("socket");
  sockaddr_ll link = {};
  link.sll_family = AF_PACKET;
  link.sll_ifindex = interface_index;
  if (sendto(fd.get(), frame.data(), frame.size(), 0, reinterpret_cast<sockaddr*>(&link), sizeof link) < 0) {
    return Failure::last("sendto");
  }
  return Nothing{};
}

}  // namespace phaul
