// One element of an nftables set, by one hand-made netlink batch: libnftables would first list tables and sets.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/outcome.h"

namespace phaul {

enum class NftFamily { inet, arp };

struct NftElement {
  NftFamily family;
  std::string_view table;
  std::string_view set;
  // In network order; at most 64 bytes (NFT_DATA_VALUE_MAXLEN). The set must not have `flags interval`.
  std::span<const std::uint8_t> key;
};

// Adding an element that is there succeeds; ENOENT: no such table or set.
Done addNftElement(const NftElement& element);
// ENOENT: no such table, set or element.
Done deleteNftElement(const NftElement& element);

}  // namespace phaul
