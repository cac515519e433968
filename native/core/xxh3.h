// XXH3 of libxxhash: guards against accidents of storage and transport, not against an attacker.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace phaul {

std::uint64_t xxh3Of(std::span<const std::uint8_t> data);

// Incremental XXH3-128.
class Xxh3Stream {
 public:
  Xxh3Stream();
  ~Xxh3Stream();
  Xxh3Stream(const Xxh3Stream&) = delete;
  Xxh3Stream& operator=(const Xxh3Stream&) = delete;

  void update(std::span<const std::uint8_t> data);
  // 32 hex digits, big-endian canonical form as `xxhsum -H2` prints it. More may be added afterwards.
  std::string digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace phaul
