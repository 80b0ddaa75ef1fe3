#include "core/safetensors.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <ostream>
#include <utility>

#include "core/json.h"

namespace tailor {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian and mapped as they are");

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit

Error corrupt(const std::filesystem::path& file, std::string what) {
  return {ErrorCode::kCorruptData, fmt::format("{}: not a valid safetensors file: {}", file.string(), what),
          "fetch or write the file again"};
}

/// Product of the dimensions, -1 where a dimension is negative or the product does not fit.
std::int64_t checked_elements(const std::vector<std::int64_t>& shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) {
    if (d < 0 || __builtin_mul_overflow(n, d, &n)) return -1;
  }
  return n;
}

}  // namespace

std::int64_t SafeTensor::elements() const {
  return checked_elements(shape);
}

std::size_t safetensor_type_bytes(std::string_view type) {
  constexpr std::pair<std::string_view, std::size_t> kTypes[] = {
      {"F64", 8},  {"I64", 8}, {"U64", 8}, {"F32", 4}, {"I32", 4}, {"U32", 4}, {"F16", 2},
      {"BF16", 2}, {"I16", 2}, {"U16", 2}, {"I8", 1},  {"U8", 1},  {"BOOL", 1}};
  for (const auto& [name, bytes] : kTypes) {
    if (name == type) return bytes;
  }
  return 0;
}

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  TAILOR_TRY(MappedFile map, MappedFile::open(path));
  SafetensorsFile file(path, std::move(map));
  const std::string_view bytes = file.map_.bytes();
  std::uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes) return corrupt(path, fmt::format("it has {} bytes", bytes.size()));
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - sizeof header_bytes) {
    return corrupt(path, fmt::format("its header claims {} bytes, the file has {}", header_bytes, bytes.size()));
  }
  const std::string_view data = bytes.substr(sizeof header_bytes + header_bytes);
  TAILOR_TRY(const Json header,
             parse_json(bytes.substr(sizeof header_bytes, header_bytes), path.string() + " (header)"));
  if (!header.is_object()) return corrupt(path, "its header is not a JSON object");

  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return corrupt(path, "__metadata__ is not an object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) return corrupt(path, "__metadata__ holds something other than text");
        file.metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    SafeTensor tensor;
    tensor.name = name;
    std::vector<std::uint64_t> range;
    try {
      tensor.type = entry.at("dtype").get<std::string>();
      tensor.shape = entry.at("shape").get<std::vector<std::int64_t>>();
      range = entry.at("data_offsets").get<std::vector<std::uint64_t>>();
    } catch (const Json::exception&) {
      return corrupt(path, fmt::format("tensor '{}' needs dtype, shape and data_offsets", name));
    }
    const std::int64_t elements = checked_elements(tensor.shape);
    const std::size_t width = safetensor_type_bytes(tensor.type);
    if (width == 0) return corrupt(path, fmt::format("tensor '{}' has the unknown type '{}'", name, tensor.type));
    if (range.size() != 2 || range[0] > range[1] || range[1] > data.size()) {
      return corrupt(path,
                     fmt::format("tensor '{}' lies outside the file's {} data bytes (cut short?)", name, data.size()));
    }
    const std::uint64_t have = range[1] - range[0];
    if (elements < 0 || static_cast<std::uint64_t>(elements) > have ||
        static_cast<std::uint64_t>(elements) * width != have) {
      return corrupt(path, fmt::format("tensor '{}' has {} bytes, which does not fit its shape", name, have));
    }
    tensor.bytes = data.substr(range[0], have);
    file.tensors_.push_back(std::move(tensor));
  }
  return file;
}

const SafeTensor* SafetensorsFile::find(std::string_view name) const {
  for (const SafeTensor& tensor : tensors_) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

Result<SafeTensor> SafetensorsFile::get(std::string_view name, std::string_view type, std::size_t dimensions) const {
  const SafeTensor* tensor = find(name);
  if (tensor == nullptr) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: tensor '{}' is missing", path_.string(), name), ""};
  }
  if (tensor->type != type || tensor->shape.size() != dimensions) {
    return Error{ErrorCode::kCorruptData,
                 fmt::format("{}: tensor '{}' should be {} with {} dimension(s), it is {} with {}", path_.string(),
                             name, type, dimensions, tensor->type, tensor->shape.size()),
                 ""};
  }
  return *tensor;
}

Status write_safetensors(const std::filesystem::path& file, std::span<const SafeTensor> tensors,
                         const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const SafeTensor& tensor : tensors) {
    header[tensor.name] = {
        {"dtype", tensor.type}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  std::string text = dump_json(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return write_stream_atomic(file, [&](std::ostream& out) -> Status {
    const std::uint64_t header_bytes = text.size();
    out.write(reinterpret_cast<const char*>(&header_bytes), sizeof header_bytes);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    for (const SafeTensor& tensor : tensors)
      out.write(tensor.bytes.data(), static_cast<std::streamsize>(tensor.bytes.size()));
    return {};
  });
}

}  // namespace tailor
