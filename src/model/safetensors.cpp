#include "model/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <unordered_map>

#include "core/files.h"
#include "core/json.h"
#include "model/half.h"

namespace tailor {
namespace {

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr int kMaxHeaderDepth = 4;                      // {name: {shape: [..]}} needs three
constexpr std::size_t kMaxShards = 4096;
constexpr std::size_t kMaxDimensions = 16;

struct TypeRow {
  SafetensorsType type;
  std::string_view name;
  std::uint64_t bytes;
};
constexpr std::array kTypes = {
    TypeRow{SafetensorsType::kF64, "F64", 8}, TypeRow{SafetensorsType::kF32, "F32", 4},
    TypeRow{SafetensorsType::kF16, "F16", 2}, TypeRow{SafetensorsType::kBF16, "BF16", 2},
    TypeRow{SafetensorsType::kI64, "I64", 8}, TypeRow{SafetensorsType::kI32, "I32", 4},
    TypeRow{SafetensorsType::kU8, "U8", 1},   TypeRow{SafetensorsType::kBool, "BOOL", 1},
};
const TypeRow& row_of(SafetensorsType type) {
  return kTypes[static_cast<std::size_t>(type)];
}

Error corrupt(const std::filesystem::path& file, std::string_view what) {
  return {ErrorCode::kCorruptData, fmt::format("{}: {}", file.string(), what),
          "the file is damaged or incomplete; fetch it again"};
}

std::string shape_text(const std::vector<std::uint64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// The product of a shape, or nothing where it does not fit.
std::optional<std::uint64_t> product(const std::vector<std::uint64_t>& shape, std::uint64_t factor) {
  std::uint64_t p = factor;
  for (const std::uint64_t n : shape) {
    if (__builtin_mul_overflow(p, n, &p)) return std::nullopt;
  }
  return p;
}

std::uint64_t load_u64(std::string_view bytes) {
  std::uint64_t v = 0;
  std::memcpy(&v, bytes.data(), sizeof v);  // little-endian machines only, as llama.cpp's files
  return v;
}

/// Parses the header; names, depth and syntax are checked here, types and ranges by read_entry().
Result<Json> parse_header(const std::filesystem::path& file, std::string_view text) {
  std::set<std::string> names;
  std::string duplicate;
  bool too_deep = false;
  const auto visit = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth > kMaxHeaderDepth) too_deep = true;
    if (event == Json::parse_event_t::key && depth == 1) {
      auto key = parsed.get<std::string>();
      if (!names.insert(key).second && duplicate.empty()) duplicate = std::move(key);
    }
    return !too_deep;
  };
  Json header = Json::parse(text, visit, /*allow_exceptions=*/false);
  if (too_deep) return corrupt(file, fmt::format("the header nests deeper than {} levels", kMaxHeaderDepth));
  if (header.is_discarded()) return corrupt(file, "the header is not valid JSON");
  if (!header.is_object()) return corrupt(file, "the header is not a JSON object");
  if (!duplicate.empty()) return corrupt(file, fmt::format("tensor '{}' is listed twice", duplicate));
  return header;
}

Result<SafetensorsEntry> read_entry(const std::filesystem::path& file, const std::string& name, const Json& item,
                                    std::string_view data) {
  const auto bad = [&](std::string_view what) { return corrupt(file, fmt::format("tensor '{}': {}", name, what)); };
  if (!item.is_object() || !item.contains("dtype") || !item.contains("shape") || !item.contains("data_offsets")) {
    return bad("expected an object with dtype, shape and data_offsets");
  }
  SafetensorsEntry entry;
  entry.name = name;
  const Json& dtype = item["dtype"];
  if (!dtype.is_string()) return bad("dtype is not a string");
  const auto text = dtype.get<std::string>();
  const auto* row = std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeRow& r) { return r.name == text; });
  if (row == kTypes.end()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: tensor '{}' has dtype '{}'; expected one of F64, F32, F16, BF16, I64, I32, U8, BOOL",
                             file.string(), name, text.substr(0, 32)),
                 "save the model in one of these types"};
  }
  entry.type = row->type;
  const Json& shape = item["shape"];
  if (!shape.is_array() || shape.size() > kMaxDimensions) {
    return bad(fmt::format("shape is not a list of at most {} sizes", kMaxDimensions));
  }
  for (const Json& n : shape) {
    if (!n.is_number_unsigned()) return bad("shape holds something that is not a size");
    entry.shape.push_back(n.get<std::uint64_t>());
  }
  const auto bytes = product(entry.shape, row->bytes);
  if (!bytes) return bad(fmt::format("shape {} is too large to exist", shape_text(entry.shape)));
  entry.elements = *bytes / row->bytes;
  const Json& offsets = item["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    return bad("data_offsets is not a pair of byte positions");
  }
  const auto begin = offsets[0].get<std::uint64_t>();
  const auto end = offsets[1].get<std::uint64_t>();
  if (begin > end || end > data.size()) {
    return bad(fmt::format("data_offsets [{}, {}] lie outside the {} data bytes of the file", begin, end, data.size()));
  }
  if (end - begin != *bytes) {
    return bad(
        fmt::format("{} {} needs {} bytes, data_offsets give {}", text, shape_text(entry.shape), *bytes, end - begin));
  }
  entry.bytes = data.substr(begin, end - begin);
  return entry;
}

struct Shard {
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

Result<Shard> read_shard(const std::filesystem::path& file, std::string_view bytes) {
  if (bytes.size() < 8)
    return corrupt(file, fmt::format("only {} bytes, too short for a safetensors file", bytes.size()));
  const std::uint64_t header_bytes = load_u64(bytes);
  if (header_bytes > kMaxHeaderBytes) {
    return corrupt(file, fmt::format("the header claims {} bytes, the limit is {}", header_bytes, kMaxHeaderBytes));
  }
  if (header_bytes > bytes.size() - 8) {
    return corrupt(file, fmt::format("the header claims {} bytes, the file has {} after its length field", header_bytes,
                                     bytes.size() - 8));
  }
  TAILOR_TRY(const Json header, parse_header(file, bytes.substr(8, header_bytes)));
  const std::string_view data = bytes.substr(8 + header_bytes);
  Shard shard;
  for (const auto& [name, item] : header.items()) {
    if (name == "__metadata__") {
      if (!item.is_object()) return corrupt(file, "__metadata__ is not an object of strings");
      for (const auto& [key, value] : item.items()) {
        if (!value.is_string()) return corrupt(file, "__metadata__ is not an object of strings");
        shard.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    TAILOR_TRY(SafetensorsEntry entry, read_entry(file, name, item, data));
    shard.entries.push_back(std::move(entry));
  }
  const auto begin_of = [&](const SafetensorsEntry& e) {
    return static_cast<std::uint64_t>(e.bytes.data() - data.data());
  };
  std::stable_sort(shard.entries.begin(), shard.entries.end(), [&](const auto& a, const auto& b) {
    // An empty tensor stands before the one that shares its position.
    return std::pair(begin_of(a), a.bytes.size()) < std::pair(begin_of(b), b.bytes.size());
  });
  std::uint64_t expected = 0;
  for (const SafetensorsEntry& entry : shard.entries) {
    const std::uint64_t begin = begin_of(entry);
    if (begin != expected) {
      return corrupt(file, fmt::format("tensor '{}' starts at data byte {}, expected {} ({})", entry.name, begin,
                                       expected, begin < expected ? "it overlaps another" : "there is a gap"));
    }
    expected += entry.bytes.size();
  }
  if (expected != data.size()) {
    return corrupt(file, fmt::format("the tensors take {} data bytes, the file holds {}", expected, data.size()));
  }
  return shard;
}

/// Shard names of an index, each once, in the order of first mention; and which tensor stands where.
struct Index {
  std::vector<std::string> files;
  std::unordered_map<std::string, std::size_t> where;
};

Result<Index> read_index(const std::filesystem::path& file) {
  TAILOR_TRY(const Json json, read_json(file));
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object() || map->empty()) {
    return corrupt(file, "no weight_map that names the shard of every tensor");
  }
  Index index;
  std::unordered_map<std::string, std::size_t> known;
  for (const auto& [tensor, value] : map->items()) {
    if (!value.is_string()) return corrupt(file, fmt::format("weight_map of '{}' is not a file name", tensor));
    const auto shard = value.get<std::string>();
    // A shard lies beside its index; a path could lead anywhere on the machine.
    if (shard.empty() || shard == "." || shard == ".." ||
        shard.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
      return corrupt(file, fmt::format("weight_map of '{}' names '{}', which is not a plain file name", tensor, shard));
    }
    const auto [it, fresh] = known.emplace(shard, index.files.size());
    if (fresh) index.files.push_back(shard);
    if (index.files.size() > kMaxShards) return corrupt(file, fmt::format("more than {} shards", kMaxShards));
    index.where[tensor] = it->second;
  }
  return index;
}

}  // namespace

struct Safetensors::Impl {
  std::vector<MappedFile> maps;
  std::vector<std::filesystem::path> files;
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
  std::unordered_map<std::string_view, std::size_t> by_name;  // keys live in entries
};

Safetensors::Safetensors(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Safetensors::Safetensors(Safetensors&&) noexcept = default;
Safetensors& Safetensors::operator=(Safetensors&&) noexcept = default;
Safetensors::~Safetensors() = default;

const std::vector<SafetensorsEntry>& Safetensors::entries() const {
  return impl_->entries;
}
const std::map<std::string, std::string>& Safetensors::metadata() const {
  return impl_->metadata;
}
const std::vector<std::filesystem::path>& Safetensors::files() const {
  return impl_->files;
}
const SafetensorsEntry* Safetensors::find(std::string_view name) const {
  const auto it = impl_->by_name.find(name);
  return it == impl_->by_name.end() ? nullptr : &impl_->entries[it->second];
}

Result<Safetensors> Safetensors::open(const std::filesystem::path& path) {
  std::filesystem::path file = path;
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) {
    file = path / "model.safetensors";
    if (!std::filesystem::exists(file, ec)) file = path / "model.safetensors.index.json";
    if (!std::filesystem::exists(file, ec)) {
      return Error{ErrorCode::kNotFound,
                   fmt::format("{}: holds neither model.safetensors nor model.safetensors.index.json", path.string()),
                   "a model saved as pytorch_model.bin must be saved again as safetensors"};
    }
  }
  Index index;
  const bool sharded = file.filename().string().ends_with(".index.json");
  if (sharded) {
    TAILOR_TRY(index, read_index(file));
  } else {
    index.files.push_back(file.filename().string());
  }
  auto impl = std::make_unique<Impl>();
  for (std::size_t s = 0; s < index.files.size(); ++s) {
    const std::filesystem::path shard_file = file.parent_path() / index.files[s];
    TAILOR_TRY(MappedFile map, MappedFile::open(shard_file));
    TAILOR_TRY(Shard shard, read_shard(shard_file, map.bytes()));
    for (SafetensorsEntry& entry : shard.entries) {
      entry.shard = s;
      if (sharded) {
        const auto it = index.where.find(entry.name);
        if (it == index.where.end() || it->second != s) {
          return corrupt(shard_file, fmt::format("tensor '{}' is not listed for this shard in {}", entry.name,
                                                 file.filename().string()));
        }
        index.where.erase(it);
      }
      impl->entries.push_back(std::move(entry));
    }
    if (s == 0) impl->metadata = std::move(shard.metadata);
    impl->maps.push_back(std::move(map));
    impl->files.push_back(shard_file);
  }
  if (!index.where.empty()) {
    const auto& [tensor, s] = *index.where.begin();
    return corrupt(impl->files[s],
                   fmt::format("tensor '{}' is missing; {} says that it is here", tensor, file.filename().string()));
  }
  for (std::size_t i = 0; i < impl->entries.size(); ++i) impl->by_name.emplace(impl->entries[i].name, i);
  return Safetensors(std::move(impl));
}

std::string_view name_of(SafetensorsType type) {
  return row_of(type).name;
}
std::uint64_t bytes_per_value(SafetensorsType type) {
  return row_of(type).bytes;
}

namespace {
template <typename T, typename Convert>
void convert_all(std::string_view bytes, std::vector<float>& out, Convert convert) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    out[i] = convert(value);
  }
}
}  // namespace

std::vector<float> to_f32(const SafetensorsEntry& entry) {
  std::vector<float> out(entry.elements);
  const auto cast = [](auto v) { return static_cast<float>(v); };
  switch (entry.type) {
    case SafetensorsType::kF32:
      if (!out.empty()) std::memcpy(out.data(), entry.bytes.data(), entry.bytes.size());
      break;
    case SafetensorsType::kF64:
      convert_all<double>(entry.bytes, out, cast);
      break;
    case SafetensorsType::kF16:
      convert_all<std::uint16_t>(entry.bytes, out, half_to_float);
      break;
    case SafetensorsType::kBF16:
      convert_all<std::uint16_t>(entry.bytes, out, bfloat16_to_float);
      break;
    case SafetensorsType::kI64:
      convert_all<std::int64_t>(entry.bytes, out, cast);
      break;
    case SafetensorsType::kI32:
      convert_all<std::int32_t>(entry.bytes, out, cast);
      break;
    case SafetensorsType::kU8:
      convert_all<std::uint8_t>(entry.bytes, out, cast);
      break;
    case SafetensorsType::kBool:
      convert_all<std::uint8_t>(entry.bytes, out, [](std::uint8_t v) { return v != 0 ? 1.0f : 0.0f; });
      break;
  }
  return out;
}

SafetensorsOutput f32_output(std::string name, std::vector<std::uint64_t> shape, std::span<const float> values) {
  return {std::move(name),
          SafetensorsType::kF32,
          std::move(shape),
          {reinterpret_cast<const char*>(values.data()), values.size_bytes()}};
}

Status write_safetensors(const std::filesystem::path& file, std::span<const SafetensorsOutput> tensors,
                         const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const SafetensorsOutput& tensor : tensors) {
    const auto bytes = product(tensor.shape, bytes_per_value(tensor.type));
    if (!bytes || *bytes != tensor.bytes.size()) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: tensor '{}' {} has {} bytes, which do not fill its shape", file.string(),
                               tensor.name, shape_text(tensor.shape), tensor.bytes.size()),
                   ""};
    }
    if (tensor.name == "__metadata__" || header.contains(tensor.name)) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("{}: tensor name '{}' is taken", file.string(), tensor.name), ""};
    }
    header[tensor.name] = {
        {"dtype", name_of(tensor.type)}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + *bytes}}};
    offset += *bytes;
  }
  std::string text = dump_json(header);
  text.append((8 - text.size() % 8) % 8, ' ');
  return write_stream_atomic(file, [&](std::ostream& out) -> Status {
    const std::uint64_t length = text.size();
    out.write(reinterpret_cast<const char*>(&length), sizeof length);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    for (const SafetensorsOutput& tensor : tensors) {
      out.write(tensor.bytes.data(), static_cast<std::streamsize>(tensor.bytes.size()));
    }
    return {};  // the stream's own errors are reported by write_stream_atomic
  });
}

}  // namespace tailor
