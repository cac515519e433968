#include "core/packet_filter.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include <cstring>

namespace phaul {
namespace {

constexpr std::uint32_t whole_packet = 0xffffffff;
constexpr std::uint32_t v4_destination = 16;
constexpr std::uint32_t v6_destination = 24;

sock_filter load(std::uint32_t offset) { return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset); }
sock_filter loadAncillary(int what) { return load(static_cast<std::uint32_t>(SKF_AD_OFF + what)); }
sock_filter giveBack(std::uint32_t bytes) { return BPF_STMT(BPF_RET | BPF_K, bytes); }

// Jumps reach 255 instructions only, hence the skips are short and a `ret` follows each match.
sock_filter skipUnlessEqual(std::uint32_t value, std::uint8_t skip) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip);
}
sock_filter skipUnlessGreater(std::uint32_t value, std::uint8_t skip) {
  return BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, value, 0, skip);
}

std::uint32_t wordAt(const std::uint8_t* bytes) {
  return static_cast<std::uint32_t>(bytes[0]) << 24 | static_cast<std::uint32_t>(bytes[1]) << 16 |
         static_cast<std::uint32_t>(bytes[2]) << 8 | bytes[3];
}

}  // namespace

std::vector<sock_filter> dropAllFilter() { return {giveBack(0)}; }

std::vector<sock_filter> destinationFilter(const AddressSet& addresses) {
  std::vector<sock_filter> v4 = {load(v4_destination)};
  for (const auto& address : addresses.v4) {
    v4.push_back(skipUnlessEqual(wordAt(address.data()), 1));
    v4.push_back(giveBack(whole_packet));
  }
  v4.push_back(giveBack(0));

  std::vector<sock_filter> v6;
  for (const auto& address : addresses.v6) {
    for (std::uint32_t word = 0; word < 4; ++word) {
      v6.push_back(load(v6_destination + 4 * word));
      // To the next address: behind the loads and compares that are left, and the `ret`.
      v6.push_back(skipUnlessEqual(wordAt(address.data() + 4 * word), static_cast<std::uint8_t>(7 - 2 * word)));
    }
    v6.push_back(giveBack(whole_packet));
  }
  v6.push_back(giveBack(0));

  // PACKET_HOST, _BROADCAST and _MULTICAST stay; above them are packets of other hosts and our own outgoing ones.
  std::vector<sock_filter> program = {
      loadAncillary(SKF_AD_PKTTYPE),
      skipUnlessGreater(PACKET_MULTICAST, 1),
      giveBack(0),
      loadAncillary(SKF_AD_PROTOCOL),
  };
  // An `if` of any length: the long jump over the IPv4 part has 32 bits.
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 1, 0));
  program.push_back(BPF_STMT(BPF_JMP | BPF_JA, static_cast<std::uint32_t>(v4.size())));
  program.insert(program.end(), v4.begin(), v4.end());
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 1, 0));
  program.push_back(giveBack(0));
  program.insert(program.end(), v6.begin(), v6.end());
  return program;
}

}  // namespace phaul
