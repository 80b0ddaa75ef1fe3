#include "serve/served_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>

#include "core/hash.h"
#include "core/soft_prompt_file.h"
#include "core/system.h"
#include "fit/optimized_model.h"
#include "fit/paths.h"
#include "fit/ready_model.h"
#include "fit/serving.h"
#include "fit/tag_answer.h"
#include "fit/tuned_decoder.h"
#include "infer/embedder.h"
#include "model/catalogue.h"
#include "model/file_hash.h"
#include "model/gguf_file.h"
#include "serve/memory_fit.h"

namespace tailor {
namespace fs = std::filesystem;
namespace {

std::int64_t unix_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string fingerprint_of(const std::string& sha256) {
  return fmt::format("tailor-{}-{}", TAILOR_VERSION, sha256.substr(0, 12));
}

/// An adapter of another model gives nonsense in silence. What it was trained on stands in the manifest of its package,
/// the directory that holds it or the one above; an adapter without one is taken on trust.
///
/// Training may have used a copy of the served file in another precision, or the reverse; such copies are named after
/// the beginning of the hash of what they were made from.
Status check_base(const fs::path& adapter, const EngineHost& host) {
  constexpr std::size_t kInNames = 16;
  std::error_code ignored;
  fs::path directory = fs::weakly_canonical(adapter).parent_path();
  if (!fs::exists(directory / "manifest.json", ignored)) directory = directory.parent_path();
  if (!fs::exists(directory / "manifest.json", ignored)) return {};
  TAILOR_TRY(const Json manifest, read_json(directory / "manifest.json", std::size_t{16} << 20));
  const Json base = manifest.value("base_model", Json::object());
  if (!base.is_object()) return {};
  const std::string hash = base.value("sha256", ""), source = base.value("source_sha256", "");
  const std::string& trained_on = source.empty() ? hash : source;
  const bool same = trained_on.size() < kInNames || hash == host.sha256 || trained_on == host.sha256 ||
                    base.value("source", "").find(host.sha256.substr(0, kInNames)) != std::string::npos ||
                    host.gguf.filename().string().find(trained_on.substr(0, kInNames)) != std::string::npos;
  if (same) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{}: was trained on {} (sha256 {}…), {} is another model (sha256 {}…)", adapter.string(),
                           base.value("id", "a model"), trained_on.substr(0, 12), host.gguf.filename().string(),
                           host.sha256.substr(0, 12)),
               "serve it on the model it was trained on"};
}

Result<std::shared_ptr<EngineHost>> make_host(const fs::path& gguf, const ModelLoadOptions& options,
                                              const TorchWorkerFiles& worker = {}) {
  TAILOR_TRY(const std::uint64_t room,
             check_memory(gguf, options.cache_bytes, options.available(), options.cache ? options.cache->held() : 0));
  TAILOR_TRY(Engine engine, Engine::load(gguf, {.threads = options.threads,
                                                .max_context = options.max_context,
                                                .cache_bytes = options.cache_bytes,
                                                .cache = options.cache,
                                                .cache_room = room,
                                                .queue = options.queue,
                                                .share = options.share,
                                                .worker = worker}));
  TAILOR_TRY(const std::string sha256, cached_sha256(gguf));
  TAILOR_TRY(ConstraintCompiler constraints, ConstraintCompiler::make(engine.tokenizer()));
  return std::make_shared<EngineHost>(EngineHost{gguf, sha256, std::move(engine), std::move(constraints)});
}

/// As llama.cpp numbers kinds of vocabularies (llama_vocab_type).
Result<std::int64_t> vocabulary_type(const fs::path& gguf) {
  constexpr std::array<std::string_view, 7> kInItsOrder{"none", "llama", "gpt2", "bert", "t5", "rwkv", "plamo2"};
  TAILOR_TRY(const GgufFile file, GgufFile::open(gguf));
  TAILOR_TRY(const std::string name, file.string("tokenizer.ggml.model"));
  const auto* found = std::find(kInItsOrder.begin(), kInItsOrder.end(), name);
  return found == kInItsOrder.end() ? 0 : found - kInItsOrder.begin();
}

Json meta_of(const fs::path& gguf) {
  const auto info = describe_model(gguf);
  const auto vocabulary = vocabulary_type(gguf);
  if (!info.has_value() || !vocabulary.has_value()) return Json::object();
  return {{"vocab_type", *vocabulary},
          {"n_vocab", info->vocabulary},
          {"vocab_size", info->vocabulary},
          {"n_ctx_train", info->context_length},
          {"n_embd", info->embedding_length},
          {"n_params", info->parameters},
          {"size", info->bytes},
          {"file_type", info->file_type},
          {"architecture", info->architecture}};
}

/// All that a package computes with.
std::vector<fs::path> model_files(const fs::path& package, const PackageManifest& manifest) {
  std::vector<fs::path> out;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(package, ignored)) {
    if (entry.path().extension() == ".gguf") out.push_back(entry.path());
  }
  const bool elsewhere = !manifest.base.id.empty() && fs::path(manifest.base.file).is_absolute();
  if (elsewhere && !fs::exists(package / "tuned.gguf", ignored)) out.push_back(manifest.base.file);
  return out;
}

/// The file in a directory that an adapter is served from.
Result<fs::path> adapter_file(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return path;
  for (const fs::path& inside :
       {fs::path(kSoftPromptFile), fs::path("adapter.gguf"), fs::path(kAdapterDirectory) / "adapter.gguf"}) {
    if (fs::exists(path / inside, ignored)) return path / inside;
  }
  return Error{ErrorCode::kNotFound,
               fmt::format("{}: holds neither adapter.gguf nor {}", path.string(), kSoftPromptFile),
               "name a GGUF adapter, a soft prompt, or a package of `tailor tune` with one"};
}

BatcherOptions batching(const ModelLoadOptions& options) {
  BatcherOptions out;
  out.waiting_time = options.queue.waiting_time;
  return out;
}

}  // namespace

std::uint64_t ModelLoadOptions::available() const {
  return available_bytes > 0 ? available_bytes : system_info().available_bytes;
}

Result<std::shared_ptr<const TextBackend>> TextBackend::make(std::shared_ptr<EngineHost> host, const fs::path& adapter,
                                                             const TextSettings& settings) {
  std::shared_ptr<TextBackend> out(new TextBackend(std::move(host)));
  out->settings_ = settings;
  TAILOR_TRY(const GgufFile file, GgufFile::open(out->host_->gguf));
  TAILOR_TRY(ChatEncoder encoder,
             make_chat_encoder(out->tokenizer(), model_templates(file), settings.form, settings.templates,
                               out->host_->gguf.filename().string(), out->note_));
  out->encoder_ = std::make_unique<ChatEncoder>(std::move(encoder));
  if (const auto& chat = out->encoder_->chat_template()) out->tool_format_ = ToolFormat::of(*chat);
  if (!adapter.empty()) {
    if (adapter.extension() == ".safetensors") {
      TAILOR_TRY(out->adapter_, out->engine().add_soft_prompt(adapter));
    } else {
      TAILOR_TRY(out->adapter_, out->engine().add_adapter(adapter));
    }
  }
  return std::shared_ptr<const TextBackend>(std::move(out));
}

TextBackend::~TextBackend() {
  if (adapter_ != 0) host_->engine.remove_adapter(adapter_);
}

Result<EmbeddingBackend::Ready> EmbeddingBackend::get() {
  const std::lock_guard lock(mutex_);
  if (!batcher_) {
    TAILOR_CHECK(check_memory({gguf_}, ModelLoadOptions{.available_bytes = available_bytes_}.available()));
    TAILOR_TRY(Embedder embedder, Embedder::load(gguf_, {.threads = share_->cores()}));
    embedder_ = std::make_unique<Embedder>(std::move(embedder));
    batcher_ = std::make_unique<TextBatcher>(
        [this](std::span<const std::string> texts) { return embedder_->embed(texts, {}, CancelToken()); }, share_,
        options_);
  }
  return Ready{batcher_.get(), &embedder_->tokenizer(), embedder_->dim(), embedder_->max_tokens()};
}

BatcherLoad EmbeddingBackend::load() const {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  return lock.owns_lock() && batcher_ ? batcher_->load() : BatcherLoad{};
}

Json ServedModel::describe() const {
  Json out{{"id", id}, {"object", "model"}, {"created", created}, {"owned_by", "tailor"}, {"root", id}};
  out["parent"] = parent.empty() ? Json(nullptr) : Json(parent);
  if (text) out["max_model_len"] = text->max_context();
  Json abilities = Json::array();
  if (text && text->encoder().can_chat()) abilities.push_back("chat");
  if (text) abilities.push_back("completions");
  if (labels) abilities.push_back("classify");
  if (labels && labels->shows_rows) abilities.push_back("nearest");
  if (tags) abilities.push_back("tag");
  if (spans) abilities.push_back("extract");
  if (embedding) abilities.push_back("embeddings");
  out["capabilities"] = abilities;
  if (labels) out["labels"] = labels->manifest.labels;
  if (tags) out["labels"] = tags->manifest.target.spans ? entity_labels(tags->manifest.labels) : tags->manifest.labels;
  if (!meta.empty()) out["meta"] = meta;
  return out;
}

BatcherLoad ServedModel::batcher_load() const {
  BatcherLoad out;
  if (labels) out.add(labels->batcher->load());
  if (tags) out.add(tags->batcher->load());
  if (spans) out.add(spans->batcher->load());
  if (embedding) out.add(embedding->load());
  return out;
}

struct ModelRegistry::Graveyard {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t alive = 0;
  std::vector<const ServedModel*> dead;
  bool closing = false;
};

ModelRegistry::ModelRegistry() : graveyard_(std::make_shared<Graveyard>()) {
  undertaker_ = std::thread([graveyard = graveyard_] {
    std::unique_lock lock(graveyard->mutex);
    for (;;) {
      graveyard->changed.wait(
          lock, [&] { return !graveyard->dead.empty() || (graveyard->closing && graveyard->alive == 0); });
      if (graveyard->dead.empty()) return;
      const ServedModel* model = graveyard->dead.back();
      graveyard->dead.pop_back();
      lock.unlock();
      delete model;
      release_free_memory();  // else a server whose models are replaced grows by what lies between allocations
      lock.lock();
      --graveyard->alive;
    }
  });
}

ModelRegistry::~ModelRegistry() {
  {
    const std::lock_guard lock(mutex_);
    models_.clear();
  }
  {
    const std::lock_guard lock(graveyard_->mutex);
    graveyard_->closing = true;
    graveyard_->changed.notify_all();
  }
  undertaker_.join();
}

ServedModelPtr ModelRegistry::put(std::unique_ptr<ServedModel> model) {
  {
    const std::lock_guard lock(graveyard_->mutex);
    ++graveyard_->alive;
  }
  ServedModelPtr shared(model.release(), [graveyard = graveyard_](const ServedModel* dead) {
    const std::lock_guard lock(graveyard->mutex);
    graveyard->dead.push_back(dead);
    graveyard->changed.notify_all();
  });
  ServedModelPtr old;  // ends outside the lock
  const std::lock_guard lock(mutex_);
  ++version_;
  listings_.clear();
  for (ServedModelPtr& known : models_) {
    if (known->id != shared->id) continue;
    old = std::exchange(known, shared);
    return shared;
  }
  models_.push_back(shared);
  return shared;
}

bool ModelRegistry::remove(const std::string& id) {
  ServedModelPtr old;
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(models_.begin(), models_.end(), [&](const auto& m) { return m->id == id; });
  if (found == models_.end()) return false;
  old = *found;
  models_.erase(found);
  ++version_;
  listings_.clear();
  return true;
}

ServedModelPtr ModelRegistry::find(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  if (id.empty()) return models_.empty() ? nullptr : models_.front();
  const auto found = std::find_if(models_.begin(), models_.end(), [&](const auto& m) { return m->id == id; });
  return found == models_.end() ? nullptr : *found;
}

ServedModelPtr ModelRegistry::find(const std::string& id, const ModelViewer& viewer) const {
  const std::lock_guard lock(mutex_);
  for (const ServedModelPtr& model : models_) {
    if ((id.empty() || model->id == id) && model->visible_to(viewer)) return model;
  }
  return nullptr;
}

std::vector<ServedModelPtr> ModelRegistry::list() const {
  const std::lock_guard lock(mutex_);
  return models_;
}

std::shared_ptr<const std::string> ModelRegistry::listing(const ModelViewer& viewer) const {
  std::string name = viewer.sees_all ? "*" : "";  // keys that own none share one text
  std::vector<ServedModelPtr> models;
  std::uint64_t version = 0;
  {
    const std::lock_guard lock(mutex_);
    const bool owns = std::any_of(models_.begin(), models_.end(),
                                  [&](const auto& m) { return !m->owner.empty() && m->owner == viewer.key_id; });
    if (owns && !viewer.sees_all) name = viewer.key_id;
    if (const auto written = listings_.find(name); written != listings_.end()) return written->second;
    models = models_;
    version = version_;
  }
  Json data = Json::array();
  for (const ServedModelPtr& model : models) {
    if (model->visible_to(viewer)) data.push_back(model->describe());
  }
  auto written = std::make_shared<const std::string>(dump_json({{"object", "list"}, {"data", std::move(data)}}));
  const std::lock_guard lock(mutex_);
  if (version == version_) listings_[name] = written;
  return written;
}

std::uint64_t ModelRegistry::version() const {
  const std::lock_guard lock(mutex_);
  return version_;
}

Result<std::unique_ptr<ServedModel>> serve_base_model(const std::string& model, const std::string& id,
                                                      const ModelLoadOptions& options) {
  TAILOR_TRY(const ModelInfo info, resolve_model(model, default_models_directory()));
  TAILOR_TRY(fs::path gguf, ready_gguf(info, ModelUse::kTraining, {}));  // in the precision of its file
  if (info.kind == ModelKind::kDecoder) {
    TAILOR_TRY(const std::string original, cached_sha256(gguf));
    if (const auto faster = optimized_file(original)) gguf = *faster;
  }
  auto out = std::make_unique<ServedModel>();
  out->id = id.empty() ? info.id : id;
  out->created = unix_now();
  out->embedding = std::make_shared<EmbeddingBackend>(gguf, options.share, batching(options), options.available_bytes);
  if (info.kind == ModelKind::kDecoder) {
    TAILOR_TRY(const auto host, make_host(gguf, options));
    TAILOR_TRY(out->text, TextBackend::make(host, {}, {}));
    out->fingerprint = fingerprint_of(host->sha256);
  } else {
    TAILOR_TRY(const std::string sha256, cached_sha256(gguf));
    out->fingerprint = fingerprint_of(sha256);
    TAILOR_CHECK(out->embedding->get());
  }
  out->meta = meta_of(gguf);
  return out;
}

Result<std::unique_ptr<ServedModel>> serve_adapter(const ServedModel& base, const fs::path& adapter,
                                                   const std::string& id) {
  if (!base.text)
    return Error{ErrorCode::kInvalidArgument, fmt::format("{} answers with no text: it takes no adapter", base.id), ""};
  TAILOR_TRY(const fs::path file, adapter_file(adapter));
  TAILOR_CHECK(check_base(file, *base.text->host()));
  TextSettings settings = base.text->settings();
  std::error_code ignored;
  if (fs::exists(adapter / kTextFile, ignored)) {
    TAILOR_TRY(settings, TextSettings::load(adapter));
  }
  auto out = std::make_unique<ServedModel>();
  out->id = id;
  out->parent = base.id;
  out->created = unix_now();
  TAILOR_TRY(out->text, TextBackend::make(base.text->host(), file, settings));
  TAILOR_TRY(const std::string sha256, cached_sha256(file));
  out->fingerprint = fingerprint_of(sha256);
  return out;
}

Result<std::unique_ptr<ServedModel>> serve_package(const fs::path& package, const std::string& id,
                                                   const ModelLoadOptions& options) {
  TAILOR_TRY(PackageManifest manifest, read_package(package));
  auto out = std::make_unique<ServedModel>();
  const fs::path whole = fs::weakly_canonical(package);
  out->id = !id.empty()                     ? id
            : whole.filename() == "package" ? whole.parent_path().filename().string()
                                            : whole.filename().string();
  out->created = unix_now();
  out->meta = {{"method", manifest.method}, {"base_model", manifest.base.id}, {"scores", manifest.scores}};
  if (manifest.serving == kServeText) {
    TAILOR_TRY(const TextSettings settings, TextSettings::load(package));
    const DecoderFiles files = decoder_files_of(package, base_model_path(package, manifest.base));
    TAILOR_TRY(const auto host, make_host(files.gguf, options, worker_files(files)));
    TAILOR_TRY(out->text, TextBackend::make(host, files.soft_prompt, settings));
    out->fingerprint = fingerprint_of(host->sha256);
    return out;
  }
  TAILOR_CHECK(check_memory(model_files(package, manifest), options.available()));
  out->fingerprint = fingerprint_of(sha256_hex(dump_json(manifest.data) + manifest.base.sha256));
  if (manifest.serving == kServeTags) {
    TAILOR_TRY(out->tags, TagBackend::load(package, std::move(manifest), options.share, batching(options)));
  } else if (manifest.serving == kServeSpan) {
    TAILOR_TRY(out->spans, SpanBackend::load(package, std::move(manifest), options.share, batching(options)));
  } else {
    TAILOR_TRY(LoadedPackage loaded, load_package(package, std::move(manifest), {.threads = options.share->cores()}));
    out->labels = LabelBackend::make(std::move(loaded.manifest), std::move(loaded.classifier), options.nearest_rows,
                                     options.share, batching(options));
  }
  return out;
}

}  // namespace tailor
