#include "binding/arguments.h"

#include <cmath>
#include <cstdint>

namespace phaul::binding {

void Arguments::refuse(std::size_t index, const char* wanted) {
  if (refused_) return;
  refused_ = true;
  const std::string message = "argument " + std::to_string(index + 1) + " must be " + wanted;
  Napi::TypeError::New(info_.Env(), message).ThrowAsJavaScriptException();
}

int Arguments::integer(std::size_t index) {
  if (!info_[index].IsNumber()) {
    refuse(index, "a number");
    return 0;
  }
  const double value = info_[index].As<Napi::Number>().DoubleValue();
  if (std::trunc(value) != value || value < INT32_MIN || value > INT32_MAX) {
    refuse(index, "a whole number of 32 bits");
    return 0;
  }
  return static_cast<int>(value);
}

bool Arguments::boolean(std::size_t index) {
  if (info_[index].IsBoolean()) return info_[index].As<Napi::Boolean>().Value();
  refuse(index, "a boolean");
  return false;
}

std::string Arguments::text(std::size_t index) {
  if (info_[index].IsString()) return info_[index].As<Napi::String>().Utf8Value();
  refuse(index, "a string");
  return {};
}

std::span<const std::uint8_t> Arguments::bytes(std::size_t index) {
  std::span<const std::uint8_t> bytes;
  if (!readBytes(info_[index], bytes)) refuse(index, "a Uint8Array");
  return bytes;
}

Napi::Function Arguments::function(std::size_t index) {
  if (info_[index].IsFunction()) return info_[index].As<Napi::Function>();
  refuse(index, "a function");
  return {};
}

Napi::Object Arguments::object(std::size_t index) {
  if (info_[index].IsObject()) return info_[index].As<Napi::Object>();
  refuse(index, "an object");
  return {};
}

Napi::Array Arguments::array(std::size_t index) {
  if (info_[index].IsArray()) return info_[index].As<Napi::Array>();
  refuse(index, "an array");
  return {};
}

bool readBytes(const Napi::Value& value, std::span<const std::uint8_t>& bytes) {
  if (!value.IsTypedArray()) return false;
  const auto array = value.As<Napi::TypedArray>();
  if (array.TypedArrayType() != napi_uint8_array) return false;
  const auto octets = value.As<Napi::Uint8Array>();
  bytes = {octets.Data(), octets.ByteLength()};
  return true;
}

}  // namespace phaul::binding
