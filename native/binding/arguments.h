// Arguments of a call, checked for type: src/native/addon.ts promises them, a slip there must not read wild memory.
#pragma once

#include <napi.h>

#include <cstdint>
#include <span>
#include <string>

namespace phaul::binding {

// A wrong argument leaves a TypeError pending and makes `refused` true; the value read is then empty.
class Arguments {
 public:
  explicit Arguments(const Napi::CallbackInfo& info) : info_(info) {}

  // A whole number of 32 bits.
  int integer(std::size_t index);
  bool boolean(std::size_t index);
  std::string text(std::size_t index);
  // Valid during the call only.
  std::span<const std::uint8_t> bytes(std::size_t index);
  Napi::Function function(std::size_t index);
  Napi::Object object(std::size_t index);
  Napi::Array array(std::size_t index);

  bool refused() const { return refused_; }
  void refuse(std::size_t index, const char* wanted);

 private:
  const Napi::CallbackInfo& info_;
  bool refused_ = false;
};

// The bytes of a Uint8Array (or Buffer); false for any other value.
bool readBytes(const Napi::Value& value, std::span<const std::uint8_t>& bytes);

}  // namespace phaul::binding
