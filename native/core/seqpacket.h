// AF_UNIX socket pairs and SOCK_SEQPACKET messages with descriptors (unix(7)).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "core/fd.h"
#include "core/outcome.h"

namespace phaul {

struct SocketPair {
  UniqueFd near;
  UniqueFd far;
};

enum class PairKind { seqpacket, stream };

// Both ends CLOEXEC and blocking. `buffer_bytes` > 0 sizes both directions, beyond net.core.*mem_max where
// CAP_NET_ADMIN allows it.
Outcome<SocketPair> openSocketPair(PairKind kind, int buffer_bytes);

struct Message {
  std::vector<std::uint8_t> data;
  std::vector<UniqueFd> fds;
};
struct PeerGone {};
struct NothingYet {};

using Received = std::variant<Message, PeerGone, NothingYet>;

// Takes one message whole, never blocks. PeerGone only after the last pending message.
// EMFILE: descriptors that came along could not be installed; the message is lost.
Outcome<Received> receiveMessage(int fd);

enum class Sent { whole, would_block };

// Never blocks, never raises SIGPIPE. EMSGSIZE: greater than the send buffer; EPIPE: the peer is gone.
Outcome<Sent> sendMessage(int fd, std::span<const std::uint8_t> data);

}  // namespace phaul
