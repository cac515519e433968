#include "core/nft_element.h"

#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <vector>

#include "core/fd.h"

namespace phaul {
namespace {

// Netlink messages in one buffer; a nest or a message gets its length when it is ended (netlink(7), nfnetlink.h).
class Batch {
 public:
  std::size_t begin(std::uint16_t type, std::uint16_t flags, std::uint8_t family, std::uint16_t resource) {
    const std::size_t at = bytes_.size();
    nlmsghdr header = {};
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
    header.nlmsg_seq = ++sequence_;
    append(&header, sizeof header);
    const nfgenmsg general = {family, NFNETLINK_V0, htons(resource)};
    append(&general, sizeof general);
    return at;
  }

  void endMessage(std::size_t at) {
    const auto length = static_cast<std::uint32_t>(bytes_.size() - at);
    std::memcpy(&bytes_[at + offsetof(nlmsghdr, nlmsg_len)], &length, sizeof length);
  }

  void attribute(std::uint16_t type, const void* data, std::size_t size) {
    const std::size_t at = beginNest(type);
    append(data, size);
    endNest(at, type);
  }

  void text(std::uint16_t type, std::string_view value) {
    std::vector<char> terminated(value.begin(), value.end());
    terminated.push_back('\0');
    attribute(type, terminated.data(), terminated.size());
  }

  std::size_t beginNest(std::uint16_t type) {
    const std::size_t at = bytes_.size();
    const nlattr header = {0, type};
    append(&header, sizeof header);
    return at;
  }

  void endNest(std::size_t at, std::uint16_t type) {
    const nlattr header = {static_cast<std::uint16_t>(bytes_.size() - at), type};
    std::memcpy(&bytes_[at], &header, sizeof header);
    bytes_.resize(NLMSG_ALIGN(bytes_.size()));
  }

  const std::vector<char>& bytes() const { return bytes_; }

 private:
  void append(const void* data, std::size_t size) {
    const char* from = static_cast<const char*>(data);
    bytes_.insert(bytes_.end(), from, from + size);
  }

  std::vector<char> bytes_;
  std::uint32_t sequence_ = 0;
};

std::vector<char> describe(const NftElement& element, std::uint16_t operation, std::uint16_t flags) {
  const std::uint8_t family = element.family == NftFamily::inet ? NFPROTO_INET : NFPROTO_ARP;
  Batch batch;
  batch.endMessage(batch.begin(NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
  const auto type = static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | operation);
  const std::size_t message = batch.begin(type, static_cast<std::uint16_t>(NLM_F_ACK | flags), family, 0);
  batch.text(NFTA_SET_ELEM_LIST_TABLE, element.table);
  batch.text(NFTA_SET_ELEM_LIST_SET, element.set);
  constexpr std::uint16_t elements = NFTA_SET_ELEM_LIST_ELEMENTS | NLA_F_NESTED;
  constexpr std::uint16_t entry = NFTA_LIST_ELEM | NLA_F_NESTED;
  constexpr std::uint16_t key = NFTA_SET_ELEM_KEY | NLA_F_NESTED;
  const std::size_t elements_at = batch.beginNest(elements);
  const std::size_t entry_at = batch.beginNest(entry);
  const std::size_t key_at = batch.beginNest(key);
  batch.attribute(NFTA_DATA_VALUE, element.key.data(), element.key.size());
  batch.endNest(key_at, key);
  batch.endNest(entry_at, entry);
  batch.endNest(elements_at, elements);
  batch.endMessage(message);
  batch.endMessage(batch.begin(NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
  return batch.bytes();
}

// The kernel handles the batch inside send(2), so the answers are there already. A failed commit is told before the
// acknowledgement of the element: the first answer decides, the others must not be taken for those of the next batch.
Done awaitAcknowledgement(int fd) {
  alignas(nlmsghdr) std::array<char, 8192> answer;
  const ssize_t got = recv(fd, answer.data(), answer.size(), MSG_DONTWAIT);
  if (got < 0) return Failure::last("recv");
  std::array<char, 1> surplus;
  while (recv(fd, surplus.data(), surplus.size(), MSG_DONTWAIT | MSG_TRUNC) >= 0) {
  }
  const auto rest = static_cast<std::size_t>(got);
  const auto* header = reinterpret_cast<const nlmsghdr*>(answer.data());
  if (rest < NLMSG_LENGTH(sizeof(nlmsgerr)) || header->nlmsg_len > rest || header->nlmsg_type != NLMSG_ERROR) {
    return Failure{EPROTO, "recv"};
  }
  nlmsgerr result;
  std::memcpy(&result, NLMSG_DATA(header), sizeof result);
  if (result.error != 0) return Failure{-result.error, "nf_tables"};
  return Nothing{};
}

// Kept open for the life of the thread, in the network namespace of its first use: when a netfilter socket is closed
// after a deletion, the kernel first waits for the deleted elements to be freed (nft_rcv_nl_event), 9 ms in the window.
Outcome<int> netlinkSocket() {
  thread_local UniqueFd netlink;
  if (!netlink) {
    netlink.reset(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
    if (!netlink) return Failure::last("socket");
  }
  return netlink.get();
}

Done change(const NftElement& element, std::uint16_t operation, std::uint16_t flags) {
  if (element.key.size() > NFT_DATA_VALUE_MAXLEN) return Failure{EINVAL, "nf_tables"};
  if (element.table.size() >= NFT_NAME_MAXLEN || element.set.size() >= NFT_NAME_MAXLEN) {
    return Failure{ENAMETOOLONG, "nf_tables"};
  }
  Outcome<int> netlink = netlinkSocket();
  if (!netlink) return netlink.failure();
  const std::vector<char> batch = describe(element, operation, flags);
  sockaddr_nl kernel = {};
  kernel.nl_family = AF_NETLINK;
  if (sendto(*netlink, batch.data(), batch.size(), 0, reinterpret_cast<sockaddr*>(&kernel), sizeof kernel) < 0) {
    return Failure::last("sendto");
  }
  return awaitAcknowledgement(*netlink);
}

}  // namespace

Done addNftElement(const NftElement& element) { return change(element, NFT_MSG_NEWSETELEM, NLM_F_CREATE); }
Done deleteNftElement(const NftElement& element) { return change(element, NFT_MSG_DELSETELEM, 0); }

}  // namespace phaul
