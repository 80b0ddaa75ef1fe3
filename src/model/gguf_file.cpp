#include "model/gguf_file.h"

#include <fmt/format.h>
#include <ggml.h>

#include <cstring>
#include <type_traits>
#include <unordered_map>

#include "core/files.h"

namespace tailor {
namespace {

// Far above any real model, far below what would exhaust memory: the file's own size bounds the rest.
constexpr std::uint64_t kMaxValues = 1 << 16;
constexpr std::uint64_t kMaxTensors = 1 << 17;
constexpr std::uint64_t kMaxKeyBytes = 65535;  // the format's own limit
constexpr std::uint64_t kMaxStringBytes = std::uint64_t{64} << 20;
constexpr std::uint64_t kMaxArrayCount = std::uint64_t{1} << 24;
constexpr std::uint64_t kMaxNameBytes = GGML_MAX_NAME - 1;
constexpr std::uint64_t kMaxAlignment = 1 << 16;
constexpr std::uint64_t kDefaultAlignment = 32;

/// Bytes of a fixed-size value; 0 for strings, arrays and unknown numbers.
std::uint64_t fixed_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

template <typename T>
T load(const char* bytes) {
  T v;
  std::memcpy(&v, bytes, sizeof v);
  return v;
}

template <typename T>
std::string encode(T v) {
  return {reinterpret_cast<const char*>(&v), sizeof v};
}

std::int64_t load_integer(GgufType type, const char* p) {
  switch (type) {
    case GgufType::kU8:
      return load<std::uint8_t>(p);
    case GgufType::kI8:
      return load<std::int8_t>(p);
    case GgufType::kU16:
      return load<std::uint16_t>(p);
    case GgufType::kI16:
      return load<std::int16_t>(p);
    case GgufType::kU32:
      return load<std::uint32_t>(p);
    case GgufType::kI32:
      return load<std::int32_t>(p);
    case GgufType::kU64:
      return static_cast<std::int64_t>(load<std::uint64_t>(p));
    default:
      return load<std::int64_t>(p);
  }
}

bool is_integer(GgufType type) {
  return fixed_bytes(type) != 0 && type != GgufType::kBool && type != GgufType::kF32 && type != GgufType::kF64;
}

constexpr std::size_t kArrayHead = 12;  // u32 element type, u64 count

/// Walks the file's header; the first thing that is wrong ends it with an error naming file and byte.
class Cursor {
 public:
  Cursor(const std::filesystem::path& file, std::string_view bytes) : file_(file), bytes_(bytes) {}

  Error error(std::string_view what, ErrorCode code = ErrorCode::kCorruptData) const {
    return {code, fmt::format("{}: byte {}: {}", file_.string(), at_, what),
            code == ErrorCode::kCorruptData ? "the file is damaged or incomplete; fetch it again" : ""};
  }
  std::uint64_t at() const { return at_; }
  std::uint64_t left() const { return bytes_.size() - at_; }

  template <typename T>
  Result<T> number(std::string_view what) {
    if (left() < sizeof(T)) return error(fmt::format("the file ends inside {}", what));
    const T v = load<T>(bytes_.data() + at_);
    at_ += sizeof(T);
    return v;
  }
  Result<std::string_view> string(std::string_view what, std::uint64_t max_bytes) {
    TAILOR_TRY(const std::uint64_t length, number<std::uint64_t>(what));
    if (length > max_bytes) return error(fmt::format("{} claims {} bytes, the limit is {}", what, length, max_bytes));
    if (length > left()) return error(fmt::format("{} claims {} bytes, the file has {} left", what, length, left()));
    const std::string_view v = bytes_.substr(at_, length);
    at_ += length;
    return v;
  }
  Result<std::string_view> take(std::uint64_t count, std::string_view what) {
    if (count > left()) return error(fmt::format("{} needs {} bytes, the file has {} left", what, count, left()));
    const std::string_view v = bytes_.substr(at_, count);
    at_ += count;
    return v;
  }
  std::string_view since(std::uint64_t begin) const { return bytes_.substr(begin, at_ - begin); }

 private:
  const std::filesystem::path& file_;
  std::string_view bytes_;
  std::uint64_t at_ = 0;
};

/// Names from the file stand in messages: control characters would garble a terminal.
std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 80)) out += (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) ? '?' : c;
  return out;
}

Result<GgufValue> read_value(Cursor& in, const std::string& key) {
  const std::string what = fmt::format("the value of '{}'", printable(key));
  TAILOR_TRY(const auto number, in.number<std::uint32_t>(what));
  const auto type = static_cast<GgufType>(number);
  const std::uint64_t begin = in.at();
  if (type == GgufType::kString) {
    TAILOR_TRY([[maybe_unused]] auto text, in.string(what, kMaxStringBytes));
  } else if (type == GgufType::kArray) {
    TAILOR_TRY(const auto element_number, in.number<std::uint32_t>(what));
    TAILOR_TRY(const auto count, in.number<std::uint64_t>(what));
    const auto element = static_cast<GgufType>(element_number);
    if (element == GgufType::kArray)
      return in.error(fmt::format("{} is an array of arrays, which no model needs", what));
    if (count > kMaxArrayCount) {
      return in.error(fmt::format("{} claims {} elements, the limit is {}", what, count, kMaxArrayCount));
    }
    if (element == GgufType::kString) {
      for (std::uint64_t i = 0; i < count; ++i) {
        TAILOR_TRY([[maybe_unused]] auto text, in.string(what, kMaxStringBytes));
      }
    } else {
      const std::uint64_t size = fixed_bytes(element);
      if (size == 0) return in.error(fmt::format("{} has the unknown element type {}", what, element_number));
      TAILOR_TRY([[maybe_unused]] auto bytes, in.take(count * size, what));  // count is at most 2^24
    }
  } else {
    const std::uint64_t size = fixed_bytes(type);
    if (size == 0) return in.error(fmt::format("{} has the unknown type {}", what, number));
    TAILOR_TRY([[maybe_unused]] auto bytes, in.take(size, what));
  }
  return GgufValue(type, std::string(in.since(begin)));
}

Result<GgufTensor> read_tensor_info(Cursor& in, std::uint64_t index) {
  TAILOR_TRY(const std::string_view name, in.string(fmt::format("the name of tensor {}", index), kMaxNameBytes));
  GgufTensor tensor;
  tensor.name = std::string(name);
  const std::string what = fmt::format("tensor '{}'", printable(name));
  if (name.empty()) return in.error(fmt::format("tensor {} has no name", index));
  TAILOR_TRY(const auto dimensions, in.number<std::uint32_t>(what));
  if (dimensions < 1 || dimensions > GGML_MAX_DIMS) {
    return in.error(fmt::format("{} has {} dimensions, expected 1 to {}", what, dimensions, GGML_MAX_DIMS));
  }
  std::uint64_t elements = 1;
  for (std::uint32_t d = 0; d < dimensions; ++d) {
    TAILOR_TRY(const auto n, in.number<std::uint64_t>(what));
    if (n == 0 || __builtin_mul_overflow(elements, n, &elements) || elements > (std::uint64_t{1} << 48)) {
      return in.error(fmt::format("{} has an impossible size {} in dimension {}", what, n, d));
    }
    tensor.shape.push_back(n);
  }
  tensor.elements = elements;
  TAILOR_TRY(const auto type, in.number<std::int32_t>(what));
  // ggml keeps rows of retired types in its table, with block size 0.
  if (type < 0 || type >= GGML_TYPE_COUNT || ggml_blck_size(static_cast<ggml_type>(type)) <= 0 ||
      ggml_type_size(static_cast<ggml_type>(type)) == 0) {
    return in.error(fmt::format("{} has the unknown type {}", what, type), ErrorCode::kInvalidArgument);
  }
  tensor.type = static_cast<TensorType>(type);
  if (tensor_bytes(tensor.type, tensor.shape[0], elements) == 0) {
    return in.error(fmt::format("{} has rows of {} values, type {} needs a multiple of {}", what, tensor.shape[0],
                                name_of(tensor.type), ggml_blck_size(static_cast<ggml_type>(type))));
  }
  TAILOR_TRY(tensor.offset, in.number<std::uint64_t>(what));
  return tensor;
}

}  // namespace

std::string_view name_of(TensorType type) {
  const auto t = static_cast<ggml_type>(type);
  return t >= 0 && t < GGML_TYPE_COUNT ? ggml_type_name(t) : "unknown";
}

std::uint64_t tensor_bytes(TensorType type, std::uint64_t row, std::uint64_t elements) {
  const auto block = static_cast<std::uint64_t>(ggml_blck_size(static_cast<ggml_type>(type)));
  if (block == 0 || row == 0 || row % block != 0) return 0;
  return elements / block * ggml_type_size(static_cast<ggml_type>(type));
}

bool can_be_f32(TensorType type) {
  const auto t = static_cast<ggml_type>(type);
  return t == GGML_TYPE_F32 || (t >= 0 && t < GGML_TYPE_COUNT && ggml_get_type_traits(t)->to_float != nullptr);
}

GgufValue::GgufValue(GgufType type, std::string encoded)
    : type_(type), element_type_(type), encoded_(std::move(encoded)) {
  if (type == GgufType::kArray) {
    element_type_ = static_cast<GgufType>(load<std::uint32_t>(encoded_.data()));
    count_ = load<std::uint64_t>(encoded_.data() + 4);
  }
}

GgufValue GgufValue::u32(std::uint32_t v) {
  return {GgufType::kU32, encode(v)};
}
GgufValue GgufValue::u64(std::uint64_t v) {
  return {GgufType::kU64, encode(v)};
}
GgufValue GgufValue::f32(float v) {
  return {GgufType::kF32, encode(v)};
}
GgufValue GgufValue::boolean(bool v) {
  return {GgufType::kBool, encode(static_cast<std::uint8_t>(v))};
}
GgufValue GgufValue::string(std::string_view v) {
  std::string bytes = encode<std::uint64_t>(v.size());
  bytes += v;
  return {GgufType::kString, std::move(bytes)};
}

namespace {
std::string array_head(GgufType type, std::uint64_t count) {
  return encode(static_cast<std::uint32_t>(type)) + encode(count);
}
}  // namespace

GgufValue GgufValue::strings(std::span<const std::string> v) {
  std::string bytes = array_head(GgufType::kString, v.size());
  for (const std::string& s : v) {
    bytes += encode<std::uint64_t>(s.size());
    bytes += s;
  }
  return {GgufType::kArray, std::move(bytes)};
}
GgufValue GgufValue::i32s(std::span<const std::int32_t> v) {
  std::string bytes = array_head(GgufType::kI32, v.size());
  bytes.append(reinterpret_cast<const char*>(v.data()), v.size_bytes());
  return {GgufType::kArray, std::move(bytes)};
}
GgufValue GgufValue::f32s(std::span<const float> v) {
  std::string bytes = array_head(GgufType::kF32, v.size());
  bytes.append(reinterpret_cast<const char*>(v.data()), v.size_bytes());
  return {GgufType::kArray, std::move(bytes)};
}

std::optional<std::int64_t> GgufValue::as_integer() const {
  if (!is_integer(type_)) return std::nullopt;
  return load_integer(type_, encoded_.data());
}
std::optional<double> GgufValue::as_number() const {
  if (type_ == GgufType::kF32) return load<float>(encoded_.data());
  if (type_ == GgufType::kF64) return load<double>(encoded_.data());
  const auto i = as_integer();
  if (!i) return std::nullopt;
  return static_cast<double>(*i);
}
std::optional<bool> GgufValue::as_bool() const {
  if (type_ != GgufType::kBool) return std::nullopt;
  return encoded_[0] != 0;
}
std::optional<std::string_view> GgufValue::as_string() const {
  if (type_ != GgufType::kString) return std::nullopt;
  return std::string_view(encoded_).substr(8);
}
std::optional<std::vector<std::string_view>> GgufValue::as_strings() const {
  if (type_ != GgufType::kArray || element_type_ != GgufType::kString) return std::nullopt;
  std::vector<std::string_view> out;
  out.reserve(count_);
  std::size_t at = kArrayHead;
  for (std::uint64_t i = 0; i < count_; ++i) {
    const auto length = load<std::uint64_t>(encoded_.data() + at);
    out.push_back(std::string_view(encoded_).substr(at + 8, length));
    at += 8 + length;
  }
  return out;
}
std::optional<std::vector<std::int64_t>> GgufValue::as_integers() const {
  if (type_ != GgufType::kArray || !is_integer(element_type_)) return std::nullopt;
  std::vector<std::int64_t> out(count_);
  const std::uint64_t size = fixed_bytes(element_type_);
  for (std::uint64_t i = 0; i < count_; ++i)
    out[i] = load_integer(element_type_, encoded_.data() + kArrayHead + i * size);
  return out;
}
std::optional<std::vector<double>> GgufValue::as_numbers() const {
  if (const auto integers = as_integers()) return std::vector<double>(integers->begin(), integers->end());
  if (type_ != GgufType::kArray) return std::nullopt;
  std::vector<double> out(count_);
  const char* p = encoded_.data() + kArrayHead;
  if (element_type_ == GgufType::kF32) {
    for (std::uint64_t i = 0; i < count_; ++i) out[i] = load<float>(p + i * 4);
  } else if (element_type_ == GgufType::kF64) {
    for (std::uint64_t i = 0; i < count_; ++i) out[i] = load<double>(p + i * 8);
  } else {
    return std::nullopt;
  }
  return out;
}

struct GgufFile::Impl {
  explicit Impl(MappedFile m) : map(std::move(m)) {}
  MappedFile map;
  std::filesystem::path path;
  std::uint32_t alignment = kDefaultAlignment;
  std::vector<std::pair<std::string, GgufValue>> values;
  std::vector<GgufTensor> tensors;
  std::unordered_map<std::string_view, std::size_t> value_by_key;    // keys live in values
  std::unordered_map<std::string_view, std::size_t> tensor_by_name;  // and in tensors
};

GgufFile::GgufFile(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
GgufFile::GgufFile(GgufFile&&) noexcept = default;
GgufFile& GgufFile::operator=(GgufFile&&) noexcept = default;
GgufFile::~GgufFile() = default;

Result<GgufFile> GgufFile::open(const std::filesystem::path& file) {
  TAILOR_TRY(MappedFile map, MappedFile::open(file));
  const std::string_view bytes = map.bytes();
  Cursor in(file, bytes);
  if (bytes.substr(0, 4) != "GGUF") {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: not a GGUF file (it does not start with 'GGUF')", file.string()),
                 "give a .gguf model file or a Hugging Face model directory"};
  }
  TAILOR_TRY([[maybe_unused]] auto magic, in.take(4, "the magic"));
  TAILOR_TRY(const auto version, in.number<std::uint32_t>("the version"));
  if (version != 2 && version != 3) {
    return in.error(fmt::format("GGUF version {}{}; expected 2 or 3", version,
                                (version & 0xFFFF) == 0 ? " (a big-endian file?)" : ""),
                    ErrorCode::kInvalidArgument);
  }
  TAILOR_TRY(const auto tensor_count, in.number<std::uint64_t>("the header"));
  TAILOR_TRY(const auto value_count, in.number<std::uint64_t>("the header"));
  if (tensor_count > kMaxTensors) {
    return in.error(fmt::format("the header claims {} tensors, the limit is {}", tensor_count, kMaxTensors));
  }
  if (value_count > kMaxValues) {
    return in.error(fmt::format("the header claims {} metadata values, the limit is {}", value_count, kMaxValues));
  }

  auto impl = std::make_unique<Impl>(std::move(map));
  impl->path = file;
  // Reserved, so that the string_view keys of the look-up tables never move; bounded by what the file can hold.
  impl->values.reserve(std::min(value_count, in.left() / 13));
  for (std::uint64_t i = 0; i < value_count; ++i) {
    TAILOR_TRY(const std::string_view key, in.string(fmt::format("metadata key {}", i), kMaxKeyBytes));
    if (key.empty()) return in.error(fmt::format("metadata key {} is empty", i));
    std::string owned(key);
    TAILOR_TRY(GgufValue value, read_value(in, owned));
    impl->values.emplace_back(std::move(owned), std::move(value));
    if (!impl->value_by_key.emplace(impl->values.back().first, i).second) {
      return in.error(fmt::format("metadata key '{}' is there twice", printable(impl->values.back().first)));
    }
  }
  if (const auto it = impl->value_by_key.find("general.alignment"); it != impl->value_by_key.end()) {
    const GgufValue& value = impl->values[it->second].second;
    const auto alignment = value.type() == GgufType::kU32 ? value.as_integer() : std::nullopt;
    if (!alignment || *alignment < 1 || static_cast<std::uint64_t>(*alignment) > kMaxAlignment ||
        (*alignment & (*alignment - 1)) != 0) {
      return in.error(fmt::format("general.alignment is not a power of two up to {}", kMaxAlignment));
    }
    impl->alignment = static_cast<std::uint32_t>(*alignment);
  }
  impl->tensors.reserve(std::min(tensor_count, in.left() / 33));
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    TAILOR_TRY(GgufTensor tensor, read_tensor_info(in, i));
    impl->tensors.push_back(std::move(tensor));
    if (!impl->tensor_by_name.emplace(impl->tensors.back().name, i).second) {
      return in.error(fmt::format("tensor '{}' is there twice", printable(impl->tensors.back().name)));
    }
  }
  const std::uint64_t align = impl->alignment;
  const auto padded = [align](std::uint64_t n) { return (n + align - 1) / align * align; };
  const std::uint64_t data_begin = padded(in.at());
  // llama.cpp wants the tensors one after the other, each padded; that also rules out overlaps.
  std::uint64_t expected = 0;
  for (GgufTensor& tensor : impl->tensors) {
    const std::uint64_t size = tensor_bytes(tensor.type, tensor.shape[0], tensor.elements);
    if (tensor.offset != expected) {
      return in.error(fmt::format("tensor '{}' is at data byte {}, expected {} (after the tensor before it)",
                                  printable(tensor.name), tensor.offset, expected));
    }
    if (data_begin > bytes.size() || tensor.offset > bytes.size() - data_begin ||
        size > bytes.size() - data_begin - tensor.offset) {
      return Error{ErrorCode::kCorruptData,
                   fmt::format("{}: tensor '{}' should end at byte {}, but the file has {} bytes", file.string(),
                               printable(tensor.name), data_begin + tensor.offset + size, bytes.size()),
                   "the file is incomplete; fetch it again"};
    }
    tensor.bytes = bytes.substr(data_begin + tensor.offset, size);
    expected += padded(size);
  }
  return GgufFile(std::move(impl));
}

const std::filesystem::path& GgufFile::path() const {
  return impl_->path;
}
std::uint32_t GgufFile::alignment() const {
  return impl_->alignment;
}
const std::vector<std::pair<std::string, GgufValue>>& GgufFile::values() const {
  return impl_->values;
}
const std::vector<GgufTensor>& GgufFile::tensors() const {
  return impl_->tensors;
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto it = impl_->value_by_key.find(key);
  return it == impl_->value_by_key.end() ? nullptr : &impl_->values[it->second].second;
}

const GgufTensor* GgufFile::tensor(std::string_view name) const {
  const auto it = impl_->tensor_by_name.find(name);
  return it == impl_->tensor_by_name.end() ? nullptr : &impl_->tensors[it->second];
}

namespace {
template <typename T>
Result<T> typed(const GgufFile& file, std::string_view key, const std::optional<T>& value, bool present,
                std::string_view kind) {
  if (value) return *value;
  return Error{present ? ErrorCode::kCorruptData : ErrorCode::kNotFound,
               fmt::format("{}: metadata '{}' is {}", file.path().string(), key,
                           present ? fmt::format("not {}", kind) : "missing"),
               ""};
}
}  // namespace

Result<std::int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* v = find(key);
  return typed(*this, key, v != nullptr ? v->as_integer() : std::nullopt, v != nullptr, "an integer");
}
Result<double> GgufFile::number(std::string_view key) const {
  const GgufValue* v = find(key);
  return typed(*this, key, v != nullptr ? v->as_number() : std::nullopt, v != nullptr, "a number");
}
Result<std::string> GgufFile::string(std::string_view key) const {
  const GgufValue* v = find(key);
  std::optional<std::string> text;
  if (v != nullptr && v->as_string()) text = std::string(*v->as_string());
  return typed(*this, key, text, v != nullptr, "a string");
}
Result<std::string> GgufFile::architecture() const {
  return string("general.architecture");
}

Result<std::vector<float>> GgufFile::tensor_f32(std::string_view name) const {
  const GgufTensor* t = tensor(name);
  if (t == nullptr) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: there is no tensor '{}'", path().string(), name), ""};
  }
  return to_f32(*t);
}

Result<std::vector<float>> rows_to_f32(const GgufTensor& tensor, std::uint64_t first, std::uint64_t count) {
  const std::uint64_t row = tensor.shape[0];
  const std::uint64_t rows = tensor.elements / row;
  if (first > rows || count > rows - first) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("tensor '{}' has {} rows; rows {} to {} were asked for", tensor.name, rows, first, first + count),
        ""};
  }
  const auto type = static_cast<ggml_type>(tensor.type);
  const std::uint64_t row_bytes = tensor_bytes(tensor.type, row, row);
  const char* source = tensor.bytes.data() + first * row_bytes;
  std::vector<float> out(count * row);
  if (type == GGML_TYPE_F32) {
    if (!out.empty()) std::memcpy(out.data(), source, out.size() * sizeof(float));
    return out;
  }
  const ggml_to_float_t convert = ggml_get_type_traits(type)->to_float;
  if (convert == nullptr) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("tensor '{}' has type {}, which cannot be turned into f32", tensor.name, name_of(tensor.type)), ""};
  }
  // The file's alignment may be 1; ggml reads blocks as structs, so an unaligned tensor is copied first.
  std::vector<std::uint64_t> aligned;
  if (reinterpret_cast<std::uintptr_t>(source) % alignof(std::uint64_t) != 0) {
    aligned.resize((count * row_bytes + 7) / 8);
    std::memcpy(aligned.data(), source, count * row_bytes);
    source = reinterpret_cast<const char*>(aligned.data());
  }
  convert(source, out.data(), static_cast<std::int64_t>(out.size()));
  return out;
}

Result<std::vector<float>> to_f32(const GgufTensor& tensor) {
  return rows_to_f32(tensor, 0, tensor.elements / tensor.shape[0]);
}

}  // namespace tailor
