#include "core/xxh3.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace phaul {

struct Xxh3Stream::State {
  XXH3_state_t hash;
};

std::uint64_t xxh3Of(std::span<const std::uint8_t> data) { return XXH3_64bits(data.data(), data.size()); }

Xxh3Stream::Xxh3Stream() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->hash); }
Xxh3Stream::~Xxh3Stream() = default;

void Xxh3Stream::update(std::span<const std::uint8_t> data) {
  // An empty span may have no address, which XXH3 refuses.
  if (!data.empty()) XXH3_128bits_update(&state_->hash, data.data(), data.size());
}

std::string Xxh3Stream::digest() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state_->hash));
  constexpr char digits[] = "0123456789abcdef";
  std::string hex;
  for (const unsigned char byte : canonical.digest) {
    hex += digits[byte >> 4];
    hex += digits[byte & 15];
  }
  return hex;
}

}  // namespace phaul
