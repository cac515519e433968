// Exercises native/core under AddressSanitizer and UndefinedBehaviorSanitizer: `make -C native check-sanitized`.
// What the kernel answers is judged by test/integration/native*.test.ts; here it is memory, lengths and borders.
// Pieces that touch a network run in a network namespace of their own, or are left out, which is said.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include <net/if.h>
#include <netinet/in.h>

#include "core/file_lock.h"
#include "core/nft_element.h"
#include "core/packet_catcher.h"
#include "core/pidfd.h"
#include "core/raw_frame.h"
#include "core/seqpacket.h"
#include "core/tcp_repair.h"
#include "core/tun.h"
#include "core/xxh3.h"

namespace {

using namespace phaul;

#define CHECK(condition)                                                                  \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      std::fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
      std::exit(1);                                                                       \
    }                                                                                     \
  } while (false)

std::vector<std::uint8_t> filled(std::size_t size, std::uint8_t with) { return std::vector<std::uint8_t>(size, with); }

Message receive(int fd) {
  auto received = receiveMessage(fd);
  CHECK(received && std::holds_alternative<Message>(*received));
  return std::get<Message>(std::move(*received));
}

template <typename Kind>
bool receivesA(int fd) {
  auto received = receiveMessage(fd);
  CHECK(received);
  return std::holds_alternative<Kind>(*received);
}

void sendFds(int over, const int* fds, std::size_t count) {
  std::vector<char> control(CMSG_SPACE(count * sizeof(int)));
  char byte = 'f';
  iovec part = {&byte, 1};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  cmsghdr* rights = CMSG_FIRSTHDR(&header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(count * sizeof(int));
  std::memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
  CHECK(sendmsg(over, &header, 0) == 1);
}

void messages() {
  auto pair = openSocketPair(PairKind::seqpacket, 1 << 20);
  CHECK(pair);
  const int near = pair->near.get();
  const int far = pair->far.get();
  CHECK(receivesA<NothingYet>(near));
  for (const std::size_t size : {std::size_t{1}, std::size_t{4095}, std::size_t{65537}, std::size_t{1} << 20}) {
    CHECK(*sendMessage(far, filled(size, 7)) == Sent::whole);
    CHECK(receive(near).data == filled(size, 7));
  }
  CHECK(*sendMessage(far, {}) == Sent::whole);
  CHECK(receive(near).data.empty());

  // The greatest number of descriptors that one message can carry.
  std::vector<int> fds(253, far);
  sendFds(far, fds.data(), fds.size());
  CHECK(receive(near).fds.size() == 253);

  std::size_t queued = 0;
  while (*sendMessage(far, filled(100000, 1)) == Sent::whole) ++queued;
  CHECK(queued > 0);
  CHECK(sendMessage(far, filled(8 << 20, 1)).failure().error == EMSGSIZE);
  CHECK(*sendMessage(near, filled(10, 2)) == Sent::whole);
  pair->far.reset();
  while (queued-- > 0) CHECK(receive(near).data.size() == 100000);
  CHECK(receivesA<PeerGone>(near));
  CHECK(receivesA<PeerGone>(near));
  CHECK(sendMessage(near, filled(10, 2)).failure().error == EPIPE);
  CHECK(receiveMessage(-1).failure().error == EBADF);

  auto stream = openSocketPair(PairKind::stream, 0);
  CHECK(stream && write(stream->near.get(), "x", 1) == 1);
}

void processes() {
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    for (;;) pause();
  }
  auto pidfd = openPidfd(child);
  CHECK(pidfd);
  auto duplicate = duplicateFdOf(pidfd->get(), 2);
  CHECK(duplicate || duplicate.failure().error == EPERM);
  CHECK(duplicateFd(pidfd->get()));
  CHECK(signalPidfd(pidfd->get(), SIGKILL));
  CHECK(waitpid(child, nullptr, 0) == child);
  CHECK(signalPidfd(pidfd->get(), SIGKILL).failure().error == ESRCH);
  CHECK(openPidfd(child).failure().error == ESRCH);
}

void locks() {
  char path[] = "/tmp/phaul-core-test-XXXXXX";
  const UniqueFd first(mkstemp(path));
  UniqueFd second(open(path, O_RDWR | O_CLOEXEC));
  unlink(path);
  CHECK(*tryLockFile(first.get()) && !*tryLockFile(second.get()));
  UniqueFd moved = std::move(second);
  moved = std::move(moved);
  CHECK(moved && !second);
  CHECK(!*inTcpRepair(first.get()));
}

void hashes() {
  CHECK(xxh3Of({}) == 0x2d06800538d394c2);
  Xxh3Stream whole;
  Xxh3Stream parts;
  const auto data = filled(100001, 3);
  whole.update(data);
  whole.update({});
  for (std::size_t at = 0; at < data.size(); at += 337) {
    parts.update(std::span(data).subspan(at, std::min<std::size_t>(337, data.size() - at)));
  }
  CHECK(whole.digest() == parts.digest() && whole.digest().size() == 32);
}

// The kernel checks every jump of a program when it is attached.
void filters() {
  auto pair = openSocketPair(PairKind::seqpacket, 0);
  for (const std::size_t count : {0, 1, 2, 100}) {
    AddressSet addresses;
    addresses.v4.resize(count);
    addresses.v6.resize(count);
    auto program = destinationFilter(addresses);
    const sock_fprog attached = {static_cast<unsigned short>(program.size()), program.data()};
    CHECK(setsockopt(pair->near.get(), SOL_SOCKET, SO_ATTACH_FILTER, &attached, sizeof attached) == 0);
  }
}

// Every cut of a packet, in memory of exactly that size.
void lengths() {
  std::uint8_t v4[24] = {0x45, 0, 0, 22};
  std::uint8_t v6[46] = {0x60, 0, 0, 0, 0, 4};
  for (std::size_t size = 0; size <= sizeof v6; ++size) {
    const auto copy = std::make_unique<std::uint8_t[]>(size);
    std::copy_n(v6, size, copy.get());
    CHECK(ipPacketLength(copy.get(), size) == (size >= 44 ? 44u : 0u));
    if (size > sizeof v4) continue;
    std::copy_n(v4, size, copy.get());
    CHECK(ipPacketLength(copy.get(), size) == (size >= 22 ? 22u : 0u));
  }
}

void network() {
  const std::vector<std::uint8_t> key = {127, 0, 0, 1};
  const std::string long_name(300, 'n');
  CHECK(addNftElement({NftFamily::inet, long_name, "s", key}).failure().error == ENAMETOOLONG);
  CHECK(!deleteNftElement({NftFamily::arp, "no-such", "set", key}));
  CHECK(!addNftElement({NftFamily::inet, "", "", {}}));

  const UniqueFd any(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq loopback = {};
  std::strcpy(loopback.ifr_name, "lo");
  loopback.ifr_flags = IFF_UP;
  CHECK(ioctl(any.get(), SIOCSIFFLAGS, &loopback) == 0);
  CHECK(ioctl(any.get(), SIOCGIFINDEX, &loopback) == 0);
  auto catcher = PacketCatcher::on(loopback.ifr_ifindex, 1 << 20);
  CHECK(catcher);
  AddressSet addresses;
  addresses.v4.push_back({127, 0, 0, 1});
  CHECK(catcher->open(addresses));
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  to.sin_port = htons(9);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const auto data = filled(60000, 5);
  CHECK(sendto(any.get(), data.data(), data.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to) == 60000);
  // A frame that says it holds an IPv4 packet and does not.
  auto frame = filled(15, 0);
  frame[12] = 8;
  CHECK(sendRawFrame(loopback.ifr_ifindex, frame));
  usleep(20000);
  auto caught = catcher->drain();
  // The datagram, once: not also as an outgoing one. The refusal by ICMP comes to this address as well.
  CHECK(caught && !caught->packets.empty() && caught->packets[0].size() == 60028);
  CHECK(catcher->shut() && catcher->drain()->packets.empty());

  auto tun = openTunInterface("phaulcore%d");
  CHECK(tun ? tun->name == "phaulcore0" : tun.failure().error == ENOENT);
}

}  // namespace

int main() {
  messages();
  processes();
  locks();
  hashes();
  filters();
  lengths();
  if (unshare(CLONE_NEWNET) == 0) {
    network();
  } else {
    std::puts("left out: network, no network namespace can be made here");
  }
  std::puts("core: all well");
  return 0;
}
