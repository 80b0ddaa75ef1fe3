#include "core/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <ostream>
#include <set>
#include <utility>

#include "core/json.h"
#include "core/safetensors_pieces.h"

namespace tailor {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian and mapped as they are");

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr int kMaxHeaderDepth = 4;                      // {name: {shape: [..]}} needs three
constexpr std::size_t kMaxDimensions = 16;

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

std::uint64_t bytes_of(const SafeTensor& tensor) {
  return tensor.bytes.size();
}
std::uint64_t bytes_of(const StreamedTensor& tensor) {
  return tensor.size();
}

/// The header's length and text; tensors stand in the order given.
template <typename Tensor>
Result<std::string> header_of(const std::filesystem::path& file, std::span<const Tensor> tensors,
                              const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    if (tensor.name == "__metadata__" || header.contains(tensor.name)) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: the tensor name '{}' is taken", file.string(), tensor.name), ""};
    }
    header[tensor.name] = {
        {"dtype", tensor.type}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + bytes_of(tensor)}}};
    offset += bytes_of(tensor);
  }
  std::string text = dump_json(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text;
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

namespace {

/// Parses the header: syntax, nesting and repeated names; types and ranges are read_entry()'s.
Result<Json> parse_header(const std::filesystem::path& path, std::string_view text) {
  std::set<std::string> names;
  std::string repeated;
  bool too_deep = false;
  const auto visit = [&](int depth, Json::parse_event_t event, Json& parsed) {
    too_deep = too_deep || depth > kMaxHeaderDepth;
    if (event == Json::parse_event_t::key && depth == 1) {
      auto name = parsed.get<std::string>();
      if (!names.insert(name).second && repeated.empty()) repeated = std::move(name);
    }
    return !too_deep;
  };
  Json header = Json::parse(text, visit, /*allow_exceptions=*/false);
  if (too_deep) return corrupt(path, fmt::format("its header nests deeper than {} levels", kMaxHeaderDepth));
  if (header.is_discarded()) return corrupt(path, "its header is not valid JSON");
  if (!header.is_object()) return corrupt(path, "its header is not a JSON object");
  if (!repeated.empty()) return corrupt(path, fmt::format("tensor '{}' is listed twice", repeated));
  return header;
}

Result<SafeTensor> read_entry(const std::filesystem::path& path, const std::string& name, const Json& entry,
                              std::string_view data) {
  const auto bad = [&](std::string_view what) { return corrupt(path, fmt::format("tensor '{}' {}", name, what)); };
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") || !entry.contains("data_offsets")) {
    return bad("needs dtype, shape and data_offsets");
  }
  SafeTensor tensor;
  tensor.name = name;
  if (!entry["dtype"].is_string()) return bad("has a dtype that is no string");
  tensor.type = entry["dtype"].get<std::string>();
  const std::size_t width = safetensor_type_bytes(tensor.type);
  if (width == 0) return bad(fmt::format("has the unknown type '{}'", tensor.type.substr(0, 32)));
  const Json& shape = entry["shape"];
  if (!shape.is_array() || shape.size() > kMaxDimensions) {
    return bad(fmt::format("has a shape that is no list of at most {} sizes", kMaxDimensions));
  }
  for (const Json& n : shape) {
    if (!n.is_number_unsigned() || n.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
      return bad("has a shape that holds something other than sizes");
    }
    tensor.shape.push_back(n.get<std::int64_t>());
  }
  std::int64_t need = checked_elements(tensor.shape);
  if (need < 0 || __builtin_mul_overflow(need, static_cast<std::int64_t>(width), &need)) {
    return bad(fmt::format("has the shape [{}], which is too large to exist", fmt::join(tensor.shape, ", ")));
  }
  const Json& range = entry["data_offsets"];
  if (!range.is_array() || range.size() != 2 || !range[0].is_number_unsigned() || !range[1].is_number_unsigned()) {
    return bad("has data_offsets that are no pair of byte positions");
  }
  const auto begin = range[0].get<std::uint64_t>();
  const auto end = range[1].get<std::uint64_t>();
  if (begin > end || end > data.size()) {
    return bad(fmt::format("lies outside the file's {} data bytes (cut short?)", data.size()));
  }
  if (end - begin != static_cast<std::uint64_t>(need)) {
    return bad(fmt::format("has {} bytes, its shape [{}] needs {}", end - begin, fmt::join(tensor.shape, ", "), need));
  }
  tensor.bytes = data.substr(begin, end - begin);
  return tensor;
}

/// The tensors must fill the data without gap, overlap or rest, as the reference implementation demands.
Status check_layout(const std::filesystem::path& path, std::span<const SafeTensor> tensors, std::string_view data) {
  std::vector<const SafeTensor*> order;
  for (const SafeTensor& tensor : tensors) order.push_back(&tensor);
  // An empty tensor stands before the one that shares its position.
  std::sort(order.begin(), order.end(), [](const SafeTensor* a, const SafeTensor* b) {
    return std::pair(a->bytes.data(), a->bytes.size()) < std::pair(b->bytes.data(), b->bytes.size());
  });
  std::uint64_t expected = 0;
  for (const SafeTensor* tensor : order) {
    const auto begin = static_cast<std::uint64_t>(tensor->bytes.data() - data.data());
    if (begin != expected) {
      return corrupt(path, fmt::format("tensor '{}' starts at data byte {}, expected {} ({})", tensor->name, begin,
                                       expected, begin < expected ? "it overlaps another" : "there is a gap"));
    }
    expected += tensor->bytes.size();
  }
  if (expected != data.size()) {
    return corrupt(path, fmt::format("its tensors take {} data bytes, the file holds {}", expected, data.size()));
  }
  return {};
}

}  // namespace

Result<SafetensorsFile> SafetensorsFile::open(const std::filesystem::path& path) {
  TAILOR_TRY(MappedFile map, MappedFile::open(path));
  SafetensorsFile file(path, std::move(map));
  const std::string_view bytes = file.map_.bytes();
  std::uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes) return corrupt(path, fmt::format("it has only {} bytes", bytes.size()));
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes || header_bytes > bytes.size() - sizeof header_bytes) {
    return corrupt(path, fmt::format("its header claims {} bytes, the file has {} (the limit is {})", header_bytes,
                                     bytes.size(), kMaxHeaderBytes));
  }
  const std::string_view data = bytes.substr(sizeof header_bytes + header_bytes);
  TAILOR_TRY(const Json header, parse_header(path, bytes.substr(sizeof header_bytes, header_bytes)));
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return corrupt(path, "__metadata__ is not an object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) return corrupt(path, "__metadata__ holds something other than text");
        file.metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    TAILOR_TRY(SafeTensor tensor, read_entry(path, name, entry, data));
    file.tensors_.push_back(std::move(tensor));
  }
  TAILOR_CHECK(check_layout(path, file.tensors_, data));
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
  for (const SafeTensor& tensor : tensors) {
    const std::int64_t elements = tensor.elements();
    const std::size_t width = safetensor_type_bytes(tensor.type);
    if (width == 0 || elements < 0 || static_cast<std::uint64_t>(elements) * width != tensor.bytes.size()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: tensor '{}' has {} bytes, which do not fill {} [{}]", file.string(), tensor.name,
                               tensor.bytes.size(), tensor.type, fmt::join(tensor.shape, ", ")),
                   ""};
    }
  }
  TAILOR_TRY(const std::string head, header_of(file, tensors, metadata));
  return write_stream_atomic(file, [&](std::ostream& out) -> Status {
    out.write(head.data(), static_cast<std::streamsize>(head.size()));
    for (const SafeTensor& tensor : tensors)
      out.write(tensor.bytes.data(), static_cast<std::streamsize>(tensor.bytes.size()));
    return {};
  });
}

std::uint64_t StreamedTensor::size() const {
  std::uint64_t elements = 1;
  for (const std::int64_t d : shape) elements *= static_cast<std::uint64_t>(d);
  return elements * safetensor_type_bytes(type);
}

namespace {

Status write_streamed(const std::filesystem::path& file, std::span<const StreamedTensor> tensors,
                      const std::map<std::string, std::string>& metadata, bool in_pieces) {
  TAILOR_TRY(const std::string head, header_of(file, tensors, metadata));
  return write_stream_atomic(file, [&](std::ostream& out) -> Status {
    out.write(head.data(), static_cast<std::streamsize>(head.size()));
    for (const StreamedTensor& tensor : tensors) {
      std::uint64_t written = 0;
      for (bool more = true; more;) {
        TAILOR_TRY(const std::string bytes, tensor.bytes());
        out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
        written += bytes.size();
        more = in_pieces && !bytes.empty() && written < tensor.size();
      }
      if (written != tensor.size()) {
        return Error{ErrorCode::kInvalidArgument,
                     fmt::format("{}: tensor '{}' has {} bytes, which do not fill {} [{}]", file.string(), tensor.name,
                                 written, tensor.type, fmt::join(tensor.shape, ", ")),
                     ""};
      }
    }
    return {};
  });
}

}  // namespace

Status write_safetensors(const std::filesystem::path& file, std::span<const StreamedTensor> tensors,
                         const std::map<std::string, std::string>& metadata) {
  return write_streamed(file, tensors, metadata, /*in_pieces=*/false);
}

Status write_safetensors_in_pieces(const std::filesystem::path& file, std::span<const StreamedTensor> tensors,
                                   const std::map<std::string, std::string>& metadata) {
  return write_streamed(file, tensors, metadata, /*in_pieces=*/true);
}

}  // namespace tailor
