#include "tune/weights.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <ggml.h>
#include <gguf.h>

#include <map>
#include <unordered_map>

#include "core/files.h"
#include "core/safetensors.h"
#include "tune/hf_names.h"

namespace tailor::tune {
namespace fs = std::filesystem;

struct BaseWeights::Impl {
  fs::path path;
  std::string architecture;
  std::map<std::string, double, std::less<>> numbers;
  std::map<std::string, std::string, std::less<>> texts;
  std::vector<MappedFile> maps;              // GGUF
  std::vector<SafetensorsFile> safetensors;  // Hugging Face
  std::vector<StoredTensor> tensors;
  std::unordered_map<std::string, std::size_t> index;

  bool add(StoredTensor tensor) {  // false: there is one of that name
    if (!index.emplace(tensor.name, tensors.size()).second) return false;
    tensors.push_back(std::move(tensor));
    return true;
  }
  const StoredTensor* find(std::string_view name) const {
    const auto found = index.find(std::string(name));
    return found == index.end() ? nullptr : &tensors[found->second];
  }
};

namespace {

Error corrupt(const fs::path& file, std::string what) {
  return {ErrorCode::kCorruptData, fmt::format("{}: {}", file.string(), what), "fetch or import the model again"};
}

struct GgufCloser {
  void operator()(gguf_context* g) const { gguf_free(g); }
};

/// Metadata that is a number or a text; arrays (the vocabulary) are not needed to train.
void read_metadata(const gguf_context* gguf, std::map<std::string, double, std::less<>>& numbers,
                   std::map<std::string, std::string, std::less<>>& texts) {
  for (std::int64_t i = 0; i < gguf_get_n_kv(gguf); ++i) {
    const std::string key = gguf_get_key(gguf, i);
    switch (gguf_get_kv_type(gguf, i)) {
      case GGUF_TYPE_UINT8:
        numbers[key] = gguf_get_val_u8(gguf, i);
        break;
      case GGUF_TYPE_INT8:
        numbers[key] = gguf_get_val_i8(gguf, i);
        break;
      case GGUF_TYPE_UINT16:
        numbers[key] = gguf_get_val_u16(gguf, i);
        break;
      case GGUF_TYPE_INT16:
        numbers[key] = gguf_get_val_i16(gguf, i);
        break;
      case GGUF_TYPE_UINT32:
        numbers[key] = gguf_get_val_u32(gguf, i);
        break;
      case GGUF_TYPE_INT32:
        numbers[key] = gguf_get_val_i32(gguf, i);
        break;
      case GGUF_TYPE_FLOAT32:
        numbers[key] = gguf_get_val_f32(gguf, i);
        break;
      case GGUF_TYPE_UINT64:
        numbers[key] = static_cast<double>(gguf_get_val_u64(gguf, i));
        break;
      case GGUF_TYPE_INT64:
        numbers[key] = static_cast<double>(gguf_get_val_i64(gguf, i));
        break;
      case GGUF_TYPE_FLOAT64:
        numbers[key] = gguf_get_val_f64(gguf, i);
        break;
      case GGUF_TYPE_BOOL:
        numbers[key] = gguf_get_val_bool(gguf, i) ? 1 : 0;
        break;
      case GGUF_TYPE_STRING:
        texts[key] = gguf_get_val_str(gguf, i);
        break;
      default:
        break;
    }
  }
}

bool known_type(int type) {
  if (type < 0 || type >= GGML_TYPE_COUNT) return false;
  const ggml_type_traits* traits = ggml_get_type_traits(static_cast<ggml_type>(type));
  return type == GGML_TYPE_F32 || (traits != nullptr && traits->to_float != nullptr);
}

std::optional<int> ggml_type_of(std::string_view safetensors_type) {
  if (safetensors_type == "F32") return GGML_TYPE_F32;
  if (safetensors_type == "F16") return GGML_TYPE_F16;
  if (safetensors_type == "BF16") return GGML_TYPE_BF16;
  return std::nullopt;
}

}  // namespace

BaseWeights::BaseWeights(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
BaseWeights::BaseWeights(BaseWeights&&) noexcept = default;
BaseWeights& BaseWeights::operator=(BaseWeights&&) noexcept = default;
BaseWeights::~BaseWeights() = default;

static Status open_gguf(const fs::path& path, std::vector<MappedFile>& maps,
                        std::map<std::string, double, std::less<>>& numbers,
                        std::map<std::string, std::string, std::less<>>& texts, std::vector<StoredTensor>& tensors) {
  TAILOR_TRY(MappedFile map, MappedFile::open(path));
  const std::unique_ptr<gguf_context, GgufCloser> gguf(
      gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = nullptr}));
  if (!gguf) return corrupt(path, "not a valid GGUF file");
  read_metadata(gguf.get(), numbers, texts);
  const std::size_t data = gguf_get_data_offset(gguf.get());
  const std::string_view bytes = map.bytes();
  for (std::int64_t i = 0; i < gguf_get_n_tensors(gguf.get()); ++i) {
    StoredTensor tensor;
    tensor.name = gguf_get_tensor_name(gguf.get(), i);
    tensor.ggml_type = gguf_get_tensor_type(gguf.get(), i);
    const std::size_t offset = data + gguf_get_tensor_offset(gguf.get(), i);
    const std::size_t size = gguf_get_tensor_size(gguf.get(), i);
    if (offset > bytes.size() || size > bytes.size() - offset) {
      return corrupt(path, fmt::format("tensor '{}' ends after the end of the file (cut short?)", tensor.name));
    }
    if (!known_type(tensor.ggml_type)) {
      return corrupt(
          path, fmt::format("tensor '{}' has a type that cannot be read (number {})", tensor.name, tensor.ggml_type));
    }
    const std::int64_t* ne = gguf_get_tensor_ne(gguf.get(), i);  // fastest dimension first
    int dimensions = GGML_MAX_DIMS;
    while (dimensions > 1 && ne[dimensions - 1] == 1) --dimensions;
    for (int d = dimensions; d-- > 0;) tensor.shape.push_back(ne[d]);
    tensor.bytes = bytes.substr(offset, size);
    tensors.push_back(std::move(tensor));
  }
  maps.push_back(std::move(map));
  return {};
}

Result<BaseWeights> BaseWeights::open(const fs::path& given) {
  auto impl = std::make_unique<Impl>();
  impl->path = given;
  std::error_code ignored;
  const bool directory = fs::is_directory(given, ignored);
  if (!directory && given.extension() != ".safetensors") {
    std::vector<StoredTensor> tensors;
    TAILOR_CHECK(open_gguf(given, impl->maps, impl->numbers, impl->texts, tensors));
    for (StoredTensor& t : tensors) {
      const std::string name = t.name;
      if (!impl->add(std::move(t))) return corrupt(given, fmt::format("tensor '{}' is there twice", name));
    }
  } else {
    const fs::path dir = directory ? given : given.parent_path();
    TAILOR_TRY(const HfModel model, read_hf_model(dir, directory ? fs::path() : given));
    impl->numbers = model.numbers;
    impl->texts = model.texts;
    for (const fs::path& shard : model.shards) {
      TAILOR_TRY(SafetensorsFile file, SafetensorsFile::open(shard));
      for (const SafeTensor& t : file.tensors()) {
        const auto name = gguf_name_of_encoder(t.name, model.texts.at(std::string(kSourceModelType)));
        if (!name) continue;
        const auto type = ggml_type_of(t.type);
        if (!type) return corrupt(shard, fmt::format("tensor '{}' is {}, expected F32, F16 or BF16", t.name, t.type));
        StoredTensor tensor{*name, t.shape, *type, t.bytes};
        if (*name == "position_embd.weight" && model.first_position > 0) {
          if (t.shape.size() != 2 || t.shape[0] <= model.first_position) {
            return corrupt(shard, fmt::format("tensor '{}' has shape [{}], expected more than {} rows", t.name,
                                              fmt::join(t.shape, ", "), model.first_position));
          }
          tensor.bytes.remove_prefix(t.bytes.size() / static_cast<std::size_t>(t.shape[0]) *
                                     static_cast<std::size_t>(model.first_position));
          tensor.shape[0] -= model.first_position;
        }
        if (!impl->add(std::move(tensor)))
          return corrupt(shard, fmt::format("tensor '{}' is there twice, as {}", t.name, *name));
      }
      impl->safetensors.push_back(std::move(file));
    }
  }
  const auto architecture = impl->texts.find("general.architecture");
  if (architecture == impl->texts.end()) return corrupt(given, "general.architecture is missing");
  impl->architecture = architecture->second;
  return BaseWeights(std::move(impl));
}

const std::string& BaseWeights::architecture() const {
  return impl_->architecture;
}
const fs::path& BaseWeights::path() const {
  return impl_->path;
}

std::optional<double> BaseWeights::number(std::string_view key) const {
  const auto found = impl_->numbers.find(key);
  if (found == impl_->numbers.end()) return std::nullopt;
  return found->second;
}

std::optional<std::string> BaseWeights::text(std::string_view key) const {
  const auto found = impl_->texts.find(key);
  if (found == impl_->texts.end()) return std::nullopt;
  return found->second;
}

double BaseWeights::need_number(std::string_view key) const {
  if (const auto value = number(key)) return *value;
  throw Exception(corrupt(impl_->path, fmt::format("metadata '{}' is missing", key)));
}

bool BaseWeights::has(std::string_view tensor) const {
  return impl_->find(tensor) != nullptr;
}

std::vector<std::string> BaseWeights::names() const {
  std::vector<std::string> names;
  for (const StoredTensor& t : impl_->tensors) names.push_back(t.name);
  return names;
}

const StoredTensor& BaseWeights::stored(std::string_view name) const {
  if (const StoredTensor* tensor = impl_->find(name)) return *tensor;
  throw Exception(corrupt(impl_->path, fmt::format("tensor '{}' is missing", name)));
}

void dequantise(int ggml_type_number, const char* bytes, std::int64_t rows, std::int64_t columns, float* out) {
  const auto type = static_cast<ggml_type>(ggml_type_number);
  const std::size_t row_bytes = ggml_row_size(type, columns);
  if (type == GGML_TYPE_F32) {
    std::copy_n(bytes, row_bytes * static_cast<std::size_t>(rows), reinterpret_cast<char*>(out));
    return;
  }
  const ggml_to_float_t to_float = known_type(ggml_type_number) ? ggml_get_type_traits(type)->to_float : nullptr;
  if (to_float == nullptr) {
    throw Exception(
        {ErrorCode::kCorruptData, fmt::format("tensor type {} cannot be dequantised", ggml_type_number), ""});
  }
  at::parallel_for(0, rows, std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(columns, 1)),
                   [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t r = begin; r < end; ++r) {
                       to_float(bytes + static_cast<std::size_t>(r) * row_bytes, out + r * columns, columns);
                     }
                   });
}

at::Tensor BaseWeights::load(std::string_view name, std::span<const std::int64_t> shape) const {
  const StoredTensor& tensor = stored(name);
  bool fits = shape.empty() || shape.size() == tensor.shape.size();
  for (std::size_t d = 0; fits && d < shape.size(); ++d) fits = shape[d] == -1 || shape[d] == tensor.shape[d];
  if (!fits) {
    throw Exception(corrupt(impl_->path, fmt::format("tensor '{}' has shape [{}], expected [{}]", name,
                                                     fmt::join(tensor.shape, ", "), fmt::join(shape, ", "))));
  }
  at::Tensor out = at::empty(tensor.shape, at::kFloat);
  const std::int64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
  dequantise(tensor.ggml_type, tensor.bytes.data(), out.numel() / std::max<std::int64_t>(columns, 1), columns,
             out.data_ptr<float>());
  return out;
}

at::Tensor BaseWeights::load_rows(std::string_view name, std::span<const std::int64_t> rows) const {
  const StoredTensor& tensor = stored(name);
  if (tensor.shape.size() != 2) {
    throw Exception(corrupt(
        impl_->path, fmt::format("tensor '{}' should have two dimensions, it has {}", name, tensor.shape.size())));
  }
  const std::int64_t columns = tensor.shape[1];
  const std::size_t row_bytes = ggml_row_size(static_cast<ggml_type>(tensor.ggml_type), columns);
  at::Tensor out = at::empty({static_cast<std::int64_t>(rows.size()), columns}, at::kFloat);
  float* to = out.data_ptr<float>();
  for (const std::int64_t row : rows) {
    if (row < 0 || row >= tensor.shape[0]) {
      throw Exception({ErrorCode::kInvalidArgument,
                       fmt::format("row {} was asked of '{}', which has {}", row, name, tensor.shape[0]),
                       "the token file was made with another model's tokenizer"});
    }
    dequantise(tensor.ggml_type, tensor.bytes.data() + static_cast<std::size_t>(row) * row_bytes, 1, columns, to);
    to += columns;
  }
  return out;
}

}  // namespace tailor::tune
