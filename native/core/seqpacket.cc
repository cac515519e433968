#include "core/seqpacket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cstring>

namespace phaul {
namespace {

// SCM_MAX_FD of include/net/scm.h: the kernel passes at most this many descriptors in one message.
constexpr std::size_t max_fds = 253;

Done sizeBuffers(int fd, int bytes) {
  const struct {
    int forced;
    int limited;
  } directions[] = {{SO_SNDBUFFORCE, SO_SNDBUF}, {SO_RCVBUFFORCE, SO_RCVBUF}};
  for (const auto& direction : directions) {
    if (setsockopt(fd, SOL_SOCKET, direction.forced, &bytes, sizeof bytes) == 0) continue;
    if (setsockopt(fd, SOL_SOCKET, direction.limited, &bytes, sizeof bytes) != 0) return Failure::last("setsockopt");
  }
  return Nothing{};
}

std::vector<UniqueFd> takeFds(msghdr& header) {
  std::vector<UniqueFd> fds;
  for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr; control = CMSG_NXTHDR(&header, control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(control) + i * sizeof fd, sizeof fd);
      fds.emplace_back(fd);
    }
  }
  return fds;
}

// Length of the next message; 0 for an empty one and at the end.
ssize_t peekLength(int fd) {
  for (;;) {
    const ssize_t length = recv(fd, nullptr, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
    if (length >= 0) return length;
    // ECONNRESET is told once, before messages that still wait: the peer closed without reading all of ours.
    if (errno != EINTR && errno != ECONNRESET) return -1;
  }
}

bool peerHungUp(int fd) {
  pollfd query = {fd, POLLRDHUP, 0};
  return poll(&query, 1, 0) == 1 && (query.revents & (POLLRDHUP | POLLHUP)) != 0;
}

}  // namespace

Outcome<SocketPair> openSocketPair(PairKind kind, int buffer_bytes) {
  int ends[2];
  const int type = kind == PairKind::seqpacket ? SOCK_SEQPACKET : SOCK_STREAM;
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) != 0) return Failure::last("socketpair");
  SocketPair pair{UniqueFd(ends[0]), UniqueFd(ends[1])};
  if (buffer_bytes > 0) {
    for (const int end : ends) {
      const Done sized = sizeBuffers(end, buffer_bytes);
      if (!sized) return sized.failure();
    }
  }
  return pair;
}

Outcome<Received> receiveMessage(int fd) {
  const ssize_t length = peekLength(fd);
  if (length < 0) {
    if (errno == EAGAIN) return Received(NothingYet{});
    return Failure::last("recv");
  }

  const bool hung_up = length == 0 && peerHungUp(fd);
  Message message;
  message.data.resize(static_cast<std::size_t>(length));
  alignas(cmsghdr) std::array<char, CMSG_SPACE(max_fds * sizeof(int))> control;
  iovec part = {message.data.data(), message.data.size()};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t got;
  do {
    got = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && (errno == EINTR || errno == ECONNRESET));
  if (got < 0) {
    if (errno == EAGAIN) return Received(NothingYet{});
    return Failure::last("recvmsg");
  }
  message.data.resize(static_cast<std::size_t>(got));
  message.fds = takeFds(header);
  if ((header.msg_flags & MSG_CTRUNC) != 0) return Failure{EMFILE, "recvmsg"};
  // With the peer gone an empty message and the end look alike; the end alone stays.
  if (hung_up && got == 0 && message.fds.empty() && peekLength(fd) <= 0) return Received(PeerGone{});
  return Received(std::move(message));
}

Outcome<Sent> sendMessage(int fd, std::span<const std::uint8_t> data) {
  for (;;) {
    if (send(fd, data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return Sent::whole;
    if (errno == EAGAIN) return Sent::would_block;
    if (errno != EINTR) return Failure::last("send");
  }
}

}  // namespace phaul
