#include "model/gguf_writer.h"

#include <fmt/format.h>
#include <ggml.h>

#include <algorithm>
#include <cstring>
#include <ostream>
#include <set>

#include "core/files.h"

namespace tailor {
namespace {

constexpr std::uint64_t kAlignment = 32;
// Types ggml can quantise to without an importance matrix; it asserts on the others.
constexpr ggml_type kWritable[] = {GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1,
                                   GGML_TYPE_Q5_0, GGML_TYPE_Q5_1, GGML_TYPE_Q8_0, GGML_TYPE_Q2_K,
                                   GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K};

std::uint64_t padded(std::uint64_t n) {
  return (n + kAlignment - 1) / kAlignment * kAlignment;
}

template <typename T>
void put(std::string& out, T v) {
  out.append(reinterpret_cast<const char*>(&v), sizeof v);
}
void put_string(std::string& out, std::string_view v) {
  put<std::uint64_t>(out, v.size());
  out += v;
}

std::uint64_t elements_of(const std::vector<std::uint64_t>& shape) {
  std::uint64_t n = shape.empty() ? 0 : 1;
  for (const std::uint64_t d : shape) n *= d;
  return n;
}

void write_padding(std::ostream& out, std::uint64_t written) {
  static constexpr char kZeros[kAlignment] = {};
  out.write(kZeros, static_cast<std::streamsize>(padded(written) - written));
}

}  // namespace

void GgufWriter::set(std::string key, GgufValue value) {
  for (auto& [k, v] : values_) {
    if (k == key) {
      v = std::move(value);
      return;
    }
  }
  values_.emplace_back(std::move(key), std::move(value));
}

void GgufWriter::erase(std::string_view key) {
  std::erase_if(values_, [&](const auto& item) { return item.first == key; });
}

void GgufWriter::add(std::string name, TensorType type, std::vector<std::uint64_t> shape, Values values) {
  tensors_.push_back({std::move(name), type, std::move(shape), std::move(values), nullptr});
}

void GgufWriter::add_raw(std::string name, TensorType type, std::vector<std::uint64_t> shape, Bytes bytes) {
  tensors_.push_back({std::move(name), type, std::move(shape), nullptr, std::move(bytes)});
}

Result<std::string> encode_tensor(TensorType type, std::span<const float> values, std::uint64_t row) {
  const std::uint64_t size = tensor_bytes(type, row, values.size());
  if (row == 0 || values.size() % row != 0 || (size == 0 && !values.empty())) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} values in rows of {} cannot be stored as {}", values.size(), row, name_of(type)), ""};
  }
  const auto t = static_cast<ggml_type>(type);
  std::string out(size, '\0');
  if (t == GGML_TYPE_F32) {
    std::memcpy(out.data(), values.data(), size);
    return out;
  }
  if (std::find(std::begin(kWritable), std::end(kWritable), t) == std::end(kWritable)) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("type {} cannot be written", name_of(type)),
                 "use f32, f16, bf16, q8_0 or q4_0"};
  }
  // ggml aborts on values that are not numbers; they would be useless in a model anyway.
  if (!std::all_of(values.begin(), values.end(), [](float v) { return v - v == 0.0f; })) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("a value is not finite and cannot be stored as {}", name_of(type)), ""};
  }
  ggml_quantize_chunk(t, values.data(), out.data(), 0, static_cast<std::int64_t>(values.size() / row),
                      static_cast<std::int64_t>(row), nullptr);
  return out;
}

Status GgufWriter::write(const std::filesystem::path& file) const {
  const auto bad = [&](std::string_view what) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: {}", file.string(), what), ""};
  };
  std::string head = "GGUF";
  put<std::uint32_t>(head, 3);
  put<std::uint64_t>(head, tensors_.size());
  std::uint64_t value_count = 0;
  std::string body;
  for (const auto& [key, value] : values_) {
    if (key == "general.alignment") continue;  // ours is the default
    put_string(body, key);
    put(body, static_cast<std::uint32_t>(value.type()));
    body += value.encoded();
    ++value_count;
  }
  put<std::uint64_t>(head, value_count);
  head += body;
  std::set<std::string_view> names;
  std::vector<std::uint64_t> sizes;
  std::uint64_t offset = 0;
  for (const Item& tensor : tensors_) {
    const std::uint64_t elements = elements_of(tensor.shape);
    const std::uint64_t size = tensor.shape.empty() || tensor.shape.size() > GGML_MAX_DIMS
                                   ? 0
                                   : tensor_bytes(tensor.type, tensor.shape[0], elements);
    if (size == 0) {
      return bad(fmt::format("tensor '{}' with shape [{}] cannot be stored as {}", tensor.name,
                             fmt::join(tensor.shape, ", "), name_of(tensor.type)));
    }
    if (tensor.name.empty() || tensor.name.size() >= GGML_MAX_NAME || !names.insert(tensor.name).second) {
      return bad(fmt::format("tensor name '{}' is empty, too long or taken", tensor.name));
    }
    put_string(head, tensor.name);
    put(head, static_cast<std::uint32_t>(tensor.shape.size()));
    for (const std::uint64_t d : tensor.shape) put(head, d);
    put(head, static_cast<std::int32_t>(tensor.type));
    put(head, offset);
    sizes.push_back(size);
    offset += padded(size);
  }
  return write_stream_atomic(file, [&](std::ostream& out) -> Status {
    out.write(head.data(), static_cast<std::streamsize>(head.size()));
    write_padding(out, head.size());
    for (std::size_t i = 0; i < tensors_.size() && out; ++i) {
      const Item& tensor = tensors_[i];
      std::string encoded;
      std::string_view bytes;
      if (tensor.bytes) {
        TAILOR_TRY(bytes, tensor.bytes());
      } else {
        TAILOR_TRY(const std::vector<float> values, tensor.values());
        auto result =
            values.size() == elements_of(tensor.shape)
                ? encode_tensor(tensor.type, values, tensor.shape[0])
                : Error{ErrorCode::kInvalidArgument,
                        fmt::format("{} values for shape [{}]", values.size(), fmt::join(tensor.shape, ", ")), ""};
        if (!result) return bad(fmt::format("tensor '{}': {}", tensor.name, result.error().message));
        encoded = std::move(*result);
        bytes = encoded;
      }
      if (bytes.size() != sizes[i]) {
        return bad(fmt::format("tensor '{}' has {} bytes, its shape needs {}", tensor.name, bytes.size(), sizes[i]));
      }
      out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
      write_padding(out, bytes.size());
    }
    return {};
  });
}

Status dequantize_to_f32(const std::filesystem::path& in, const std::filesystem::path& out) {
  TAILOR_TRY(const GgufFile file, GgufFile::open(in));
  GgufWriter writer;
  for (const auto& [key, value] : file.values()) writer.set(key, value);
  writer.set("general.file_type", GgufValue::u32(0));
  writer.erase("general.quantization_version");
  for (const GgufTensor& tensor : file.tensors()) {
    if (can_be_f32(tensor.type)) {
      writer.add(tensor.name, TensorType::kF32, tensor.shape, [&tensor] { return to_f32(tensor); });
    } else {  // integers
      writer.add_raw(tensor.name, tensor.type, tensor.shape, [&tensor] { return Result(tensor.bytes); });
    }
  }
  return writer.write(out);
}

}  // namespace tailor
