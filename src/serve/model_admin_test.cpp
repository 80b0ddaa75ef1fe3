// Models loaded and dropped over HTTP, and what no request may reach.

#include "serve/model_admin.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <cstdlib>
#include <future>

#include "core/files.h"
#include "serve/key_door.h"
#include "serve/key_file.h"
#include "serve/memory_fit.h"
#include "serve/test_api.h"
#include "serve/test_log.h"
#include "serve/test_openapi.h"
#include "serve/test_packages.h"
#include "store/store_testing.h"

namespace tailor {
namespace {

using test::JsonAnswer;
using test::KeptLog;
using test::TestApi;
namespace fs = std::filesystem;

struct AdminApi {
  TemporaryDirectory dir{"tailor-admin"};
  std::unique_ptr<Store> store = Store::open(dir.path() / "store").value();
  KeptLog log;
  KeyDoor door{*store, log};
  std::string admin = fields({Scope::kAdmin}), infer = fields({Scope::kInfer});
  TestApi api{{}, {}, &door};
  ModelLoadOptions load{.cache_bytes = std::uint64_t{64} << 20, .share = std::make_shared<ComputeShare>(2)};
  ModelAdmin models{api.models(), store.get(), load, dir.path() / "adapters", log};

  AdminApi() {
    make_directories(dir.path() / "adapters").value();
    api.api().services().admin = &models;
  }
  ~AdminApi() { api.server().stop(); }  // before what its handlers use
  std::string fields(Scopes scopes) {
    return "X-Api-Key: " + store->keys().create({.name = "test", .scopes = scopes}).value().secret + "\r\n";
  }
  JsonAnswer post(const std::string& path, const Json& body) { return api.post(path, body, admin); }
  int remove(const std::string& id, const std::string& key) {
    return api.client().ask("DELETE /v1/admin/models/" + id + " HTTP/1.1\r\nHost: localhost\r\n" + key + "\r\n").status;
  }
  bool audited(const std::string& action, const std::string& object) {
    const auto entries = store->audit().entries(0, 100).value();
    return std::any_of(entries.begin(), entries.end(), [&](const AuditRecord& r) {
      return r.entry.action == action && r.entry.object == object && r.entry.actor.rfind("key_", 0) == 0;
    });
  }
};

TEST(ModelAdmin, LoadsABaseModelByNameAndDropsIt) {
  AdminApi a;
  const JsonAnswer loaded = a.post("/v1/admin/models", {{"name", "vectors"}, {"model", "all-minilm-l6-v2"}});
  ASSERT_EQ(loaded.status, 200) << loaded.json;
  EXPECT_EQ(loaded.json["id"], "vectors");
  EXPECT_EQ(loaded.json["meta"]["vocab_type"], 3) << "LLAMA_VOCAB_TYPE_WPM";
  EXPECT_TRUE(a.audited("model.load", "vectors"));
  EXPECT_EQ(a.api.get("/v1/models/vectors", a.infer).status, 200);
  EXPECT_EQ(a.remove("vectors", a.infer), 403) << "a key for asking changes nothing";
  EXPECT_EQ(a.remove("vectors", a.admin), 200);
  EXPECT_TRUE(a.audited("model.remove", "vectors"));
  EXPECT_EQ(a.api.get("/v1/models/vectors", a.infer).status, 404);
  EXPECT_EQ(a.remove("vectors", a.admin), 404);
}

TEST(ModelAdmin, AnswersAreThoseThatTheDescriptionTells) {
  AdminApi a;
  const test::Described described;
  test::write_neighbours_package(a.dir.path() / "package", true);
  a.store->packages().add("support", "1", a.dir.path() / "package", {}).value();
  tailor::testing::write_tiny_adapter(a.dir.path() / "adapters" / "polite.gguf");
  const auto post = [&](const std::string& path, const Json& body) {
    const JsonAnswer got = a.post(path, body);
    EXPECT_EQ(got.status, 200) << got.json;
    described.check(got.json, "post", path);
  };
  post("/v1/admin/models", {{"package", "support@1"}});
  post("/v1/load_lora_adapter", {{"lora_name", "polite"}, {"lora_path", "polite.gguf"}});
  post("/v1/unload_lora_adapter", {{"lora_name", "polite"}});
  const test::Answer removed =
      a.api.client().ask("DELETE /v1/admin/models/support HTTP/1.1\r\nHost: localhost\r\n" + a.admin + "\r\n");
  EXPECT_EQ(removed.status, 200);
  described.check(Json::parse(removed.body), "delete", "/v1/admin/models/{id}");
}

TEST(ModelAdmin, NothingIsLoadedOrDroppedWithoutAnEntryInTheAuditLog) {
  AdminApi a;
  test::write_neighbours_package(a.dir.path() / "package", true);
  a.store->packages().add("support", "1", a.dir.path() / "package", {}).value();
  a.store->packages().promote("support", "1", "test").value();
  tailor::testing::write_tiny_adapter(a.dir.path() / "adapters" / "polite.gguf");
  close_audit(*a.store);
  EXPECT_EQ(a.post("/v1/admin/models", {{"package", "support"}}).status, 500);
  EXPECT_EQ(a.post("/v1/admin/models", {{"package", "support@1"}}).status, 500);
  EXPECT_EQ(a.post("/v1/admin/models", {{"model", "all-minilm-l6-v2"}}).status, 500);
  EXPECT_EQ(a.post("/v1/load_lora_adapter", {{"lora_name", "polite"}, {"lora_path", "polite.gguf"}}).status, 500);
  EXPECT_EQ(a.remove("tiny", a.admin), 500);
  EXPECT_EQ(a.remove("none", a.admin), 404);
  ASSERT_EQ(a.api.models().list().size(), 1U);
  EXPECT_EQ(a.api.models().list()[0]->id, "tiny");
}

TEST(ModelAdmin, TakesNamesAndNoPaths) {
  AdminApi a;
  const std::string file = testing::tiny_llama().string();
  for (const std::string& name : {file, std::string("../tiny-llama.gguf"), std::string("/etc/passwd")}) {
    EXPECT_EQ(a.post("/v1/admin/models", {{"model", name}}).status, 404) << name;
    EXPECT_EQ(a.post("/v1/admin/models", {{"package", name}}).status, 404) << name;
    EXPECT_EQ(a.post("/v1/admin/models", {{"adapter", name}, {"name", "x"}}).status, 404) << name;
  }
  EXPECT_EQ(a.post("/v1/admin/models", Json::object()).status, 400);
  EXPECT_EQ(a.post("/v1/admin/models", {{"model", "a"}, {"package", "b"}}).status, 400);
}

TEST(ModelAdmin, AdaptersByPathStayUnderTheirRoot) {
  AdminApi a;
  const fs::path outside = a.dir.path() / "outside.gguf", link = a.dir.path() / "adapters" / "link.gguf";
  write_file_atomic(outside, "secret").value();
  fs::create_symlink(outside, link);
  write_file_atomic(a.dir.path() / "adapters" / "broken.gguf", "not an adapter").value();
  const auto load = [&](const std::string& path) {
    return a.post("/v1/load_lora_adapter", {{"lora_name", "x"}, {"lora_path", path}});
  };
  const JsonAnswer nothing = load("none.gguf");
  EXPECT_EQ(nothing.status, 404);
  for (const std::string& path : {outside.string(), link.string(), std::string("../outside.gguf"), std::string("."),
                                  std::string("/etc/passwd")}) {
    const JsonAnswer got = load(path);
    EXPECT_EQ(got.status, 404) << path;
    EXPECT_EQ(got.json, nothing.json) << "what is there and what is not are told alike: " << path;
  }
  EXPECT_EQ(load("broken.gguf").status, 400) << "this one is looked at";
  EXPECT_EQ(a.post("/v1/load_lora_adapter", {{"lora_name", "tiny"}, {"lora_path", "broken.gguf"}}).status, 400)
      << "the name is taken";
  EXPECT_EQ(a.post("/v1/unload_lora_adapter", {{"lora_name", "tiny"}}).status, 404) << "no adapter";
}

TEST(ModelAdmin, DirectoriesOfAdaptersHoldNoLinks) {
  AdminApi a;
  const fs::path outside = a.dir.path() / "outside", root = a.dir.path() / "adapters";
  make_directories(outside / "adapter").value();
  testing::write_tiny_adapter(outside / "adapter" / "adapter.gguf");
  const auto load = [&](const std::string& path) {
    return a.post("/v1/load_lora_adapter", {{"lora_name", "x"}, {"lora_path", path}, {"load_inplace", true}}).status;
  };
  make_directories(root / "plain").value();
  fs::copy_file(outside / "adapter" / "adapter.gguf", root / "plain" / "adapter.gguf");
  EXPECT_EQ(load("plain"), 200);
  fs::create_symlink(outside / "adapter" / "adapter.gguf", root / "plain" / "text.json");
  EXPECT_EQ(load("plain"), 404) << "a file beside it";
  make_directories(root / "file").value();
  fs::create_symlink(outside / "adapter" / "adapter.gguf", root / "file" / "adapter.gguf");
  EXPECT_EQ(load("file"), 404) << "the file itself";
  make_directories(root / "directory").value();
  fs::create_directory_symlink(outside / "adapter", root / "directory" / "adapter");
  EXPECT_EQ(load("directory"), 404) << "its directory";
}

TEST(ModelAdmin, ErrorsTellNoPathsAndTheLogDoes) {
  AdminApi a;
  write_file_atomic(a.dir.path() / "adapters" / "broken.gguf", "not an adapter").value();
  for (const JsonAnswer& got :
       {a.post("/v1/load_lora_adapter", {{"lora_name", "x"}, {"lora_path", "broken.gguf"}}),
        a.post("/v1/admin/models", {{"package", "none"}}), a.post("/v1/admin/models", {{"model", "none"}})}) {
    const std::string message = got.json["error"]["message"];
    EXPECT_FALSE(message.empty());
    EXPECT_EQ(message.find(a.dir.path().string()), std::string::npos) << message;
    EXPECT_EQ(message.find('/'), std::string::npos) << message;
  }
  EXPECT_NE(a.log.all().find((a.dir.path() / "adapters" / "broken.gguf").string()), std::string::npos) << a.log.all();
}

TEST(ModelAdmin, WhatWasPromotedMeanwhileIsLeftForLaterNotForgotten) {
  AdminApi a;
  test::write_neighbours_package(a.dir.path() / "package", true);
  PackageStore& packages = a.store->packages();
  for (const char* version : {"1", "2"}) packages.add("support", version, a.dir.path() / "package", {}).value();
  packages.promote("support", "1", "test").value();
  const auto version = [&] { return a.api.models().find("support")->meta.value("version", ""); };
  ASSERT_TRUE(a.models.load_stored("support", ""));
  EXPECT_EQ(version(), "1");
  EXPECT_TRUE(a.models.follow_production());
  // A pipe that nobody writes to: it is being loaded until this opens it.
  const fs::path pipe = a.dir.path() / "adapters" / "slow.gguf";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(a.api.models().loading(), 0);
  auto slow = std::async(std::launch::async, [&] { return a.models.load_adapter("slow.gguf", "tiny", "slow"); });
  EXPECT_TRUE(test::eventually([&] { return a.api.models().loading() == 1; }));
  packages.promote("support", "2", "test").value();
  EXPECT_FALSE(a.models.follow_production());
  EXPECT_EQ(version(), "1");
  int writer = -1;
  EXPECT_TRUE(test::eventually([&] { return (writer = open(pipe.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC)) >= 0; }));
  close(writer);
  EXPECT_FALSE(slow.get()) << "it was no adapter";
  EXPECT_EQ(a.api.models().loading(), 0);
  CancelToken ends;
  ends.cancel();
  EXPECT_TRUE(a.models.follow_production(ends));
  EXPECT_EQ(version(), "1") << "the server ends: nothing more is loaded";
  EXPECT_TRUE(a.models.follow_production());
  EXPECT_EQ(version(), "2");
  EXPECT_EQ(a.log.all().find("stays at version"), std::string::npos) << a.log.all();
}

TEST(ModelAdmin, WhatTookAPackagesPlaceIsNotReplacedByItsNextVersion) {
  AdminApi a;
  test::write_neighbours_package(a.dir.path() / "package", true);
  PackageStore& packages = a.store->packages();
  for (const char* version : {"1", "2"}) packages.add("support", version, a.dir.path() / "package", {}).value();
  packages.promote("support", "1", "test").value();
  tailor::testing::write_tiny_adapter(a.dir.path() / "adapters" / "polite.gguf");
  ASSERT_TRUE(a.models.load_stored("support", "first"));
  ASSERT_TRUE(a.models.load_stored("support", "second"));
  ASSERT_TRUE(a.models.load_base("all-minilm-l6-v2", "first"));
  ASSERT_TRUE(a.models.load_adapter("polite.gguf", "tiny", "second"));
  packages.promote("support", "2", "test").value();
  EXPECT_TRUE(a.models.follow_production());
  EXPECT_EQ(a.api.models().find("first")->labels, nullptr);
  EXPECT_EQ(a.api.models().find("second")->parent, "tiny");
}

TEST(ModelAdmin, AdaptersByPathAreOffWhereNoRootWasNamed) {
  AdminApi a;
  ModelAdmin none(a.api.models(), a.store.get(), a.load, "", a.log);
  a.api.api().services().admin = &none;
  EXPECT_EQ(a.post("/v1/load_lora_adapter", {{"lora_name", "x"}, {"lora_path", "x"}}).status, 403);
  EXPECT_EQ(a.post("/v1/unload_lora_adapter", {{"lora_name", "x"}}).status, 403);
}

TEST(ModelAdmin, WithoutKeysNobodyIsAnAdministrator) {
  TemporaryDirectory dir;
  const auto store = Store::open(dir.path() / "store").value();
  NullLogger log;
  KeyDoor door(*store, log);
  TestApi api({}, {}, &door);
  EXPECT_EQ(api.get("/v1/models").status, 200);
  EXPECT_EQ(api.post("/v1/admin/models", {{"model", "all-minilm-l6-v2"}}).status, 403);
}

TEST(ServedModel, AnAdapterOfAnotherModelIsRefused) {
  AdminApi a;
  const fs::path package = a.dir.path() / "adapters" / "package";
  make_directories(package / "adapter").value();
  write_file_atomic(package / "adapter" / "adapter.gguf", "never read").value();
  const auto manifest = [&](const Json& base) {
    write_json_atomic(package / "manifest.json", {{"base_model", base}}).value();
  };
  const std::string other(64, 'a');
  manifest({{"id", "other-model"}, {"sha256", other}});
  const auto tiny = a.api.models().find("tiny");
  const auto refused = serve_adapter(*tiny, package, "x");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("was trained on other-model"), std::string::npos) << refused.error().message;
  const JsonAnswer told = a.post("/v1/load_lora_adapter", {{"lora_name", "x"}, {"lora_path", "package"}});
  EXPECT_EQ(told.status, 400) << told.json;
  EXPECT_FALSE(serve_adapter(*tiny, package / "adapter" / "adapter.gguf", "x").error().message.find("was trained on") ==
               std::string::npos)
      << "its file alone is known by the package around it";
  const std::string& sha256 = tiny->text->host()->sha256;
  for (const Json& base :
       {Json{{"sha256", sha256}}, Json{{"sha256", other}, {"source_sha256", sha256}},
        Json{{"sha256", other}, {"source", "tiny.gguf, as tiny-" + sha256.substr(0, 16) + "-f16.gguf"}}}) {
    manifest(base);
    EXPECT_EQ(serve_adapter(*tiny, package, "x").error().message.find("was trained on"), std::string::npos) << base;
  }
}

TEST(ServedModel, ModelsOfAServerShareOneCache) {
  ModelLoadOptions load{.cache = std::make_shared<CacheBudget>(std::uint64_t{8} << 20),
                        .share = std::make_shared<ComputeShare>(2)};
  const auto cells = [](const ServedModel& model) { return model.text->engine().stats().cells; };
  const auto first = serve_base_model(testing::tiny_llama().string(), "first", load).value();
  const auto alone = cells(*first);
  auto second = serve_base_model(testing::tiny_llama().string(), "second", load).value();
  EXPECT_LE(cells(*first) + cells(*second), alone);
  EXPECT_EQ(cells(*first), cells(*second));
  second.reset();
  EXPECT_EQ(cells(*first), alone);
}

TEST(MemoryFit, SaysWhatWouldFit) {
  const fs::path file = testing::tiny_llama();
  const std::uint64_t weights = fs::file_size(file), mb = 1 << 20;
  EXPECT_TRUE(check_memory(file, 0, weights + 512 * mb));
  const auto cache = check_memory(file, std::uint64_t{1} << 40, weights + 512 * mb);
  ASSERT_FALSE(cache);
  EXPECT_EQ(cache.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(cache.error().hint.find("--cache-bytes"), std::string::npos) << cache.error().hint;
  const std::size_t at = cache.error().hint.find("--cache-bytes ") + 14;
  EXPECT_TRUE(check_memory(file, std::stoull(cache.error().hint.substr(at)), weights + 512 * mb))
      << "what it says fits does";
  const std::uint64_t room = check_memory(file, 64 * mb, weights + 512 * mb).value();
  EXPECT_GE(room, 448 * mb) << "beside weights and what computing takes";
  EXPECT_LT(room, 512 * mb);
  // Other models hold a part of the cache by now, and may take the rest of it.
  EXPECT_TRUE(check_memory(file, 1024 * mb, weights + 512 * mb, 640 * mb));
  const auto shared = check_memory(file, 1024 * mb, weights + 512 * mb, 256 * mb);
  ASSERT_FALSE(shared);
  EXPECT_NE(shared.error().hint.find(fmt::format("--cache-bytes {} ", 256 * mb + room)), std::string::npos)
      << shared.error().hint;
  const auto tight = check_memory(file, 0, 64 * mb + weights / 4 * 3);
  ASSERT_FALSE(tight);
  EXPECT_NE(tight.error().hint.find("q"), std::string::npos) << tight.error().hint;
  const auto hopeless = check_memory(file, 0, mb);
  ASSERT_FALSE(hopeless);
  EXPECT_NE(hopeless.error().hint.find("smaller model"), std::string::npos) << hopeless.error().hint;
}

TEST(MemoryFit, IsAskedBeforeAnyModelOrPackageIsLoaded) {
  TemporaryDirectory dir;
  test::write_prompt_package(dir.path() / "prompted", false);
  test::write_prompt_package(dir.path() / "retrieved", true);
  test::write_neighbours_package(dir.path() / "near", true);
  test::write_tag_package(dir.path() / "tags", {0, 0, 0, 0, 0}, 1);
  test::write_span_package(dir.path() / "span", 1, false);
  ModelLoadOptions load{.share = std::make_shared<ComputeShare>(2)};
  const auto expect_no_room = [](const auto& loaded, const std::string& what) {
    ASSERT_FALSE(loaded) << what;
    EXPECT_EQ(loaded.error().code, ErrorCode::kOutOfMemory) << what;
    EXPECT_NE(loaded.error().message.find("does not fit into memory"), std::string::npos) << loaded.error().message;
  };
  for (const char* package : {"prompted", "retrieved", "near", "tags", "span"}) {
    load.available_bytes = std::uint64_t{1} << 40;
    EXPECT_TRUE(serve_package(dir.path() / package, "x", load)) << package;
    load.available_bytes = 1 << 20;
    expect_no_room(serve_package(dir.path() / package, "x", load), package);
  }
  expect_no_room(serve_base_model(testing::tiny_llama().string(), "x", load), "text");
  expect_no_room(serve_base_model(test::tiny_encoder().string(), "x", load), "vectors");
  EmbeddingBackend vectors(testing::tiny_llama(), load.share, {}, 1 << 20);
  expect_no_room(vectors.get(), "vectors of a model of text");
}

TEST(MemoryFit, ModelsThatAreLoadedTogetherAddUp) {
  const fs::path file = testing::tiny_llama(), other = test::tiny_encoder();
  const std::uint64_t mb = 1 << 20, weights = fs::file_size(file) + fs::file_size(other);
  EXPECT_TRUE(check_memory({file, other}, weights + 512 * mb));
  EXPECT_FALSE(check_memory({file, other}, weights + 32 * mb));
  EXPECT_TRUE(check_memory({}, mb));
}

TEST(KeyFile, SecretsMustBePrivateAndHashesNeedNotBe) {
  TemporaryDirectory dir;
  const fs::path file = dir.path() / "keys.yaml";
  write_file_atomic(
      file, "- id: ci\n  sha256: \"" + std::string(64, 'a') + "\"\n  scopes: [infer, metrics]\n  max_concurrent: 2\n")
      .value();
  chmod(file.c_str(), 0644);
  const auto hashed = read_fixed_keys(file).value();
  ASSERT_EQ(hashed.size(), 1u);
  EXPECT_EQ(hashed[0].key.id, "ci");
  EXPECT_EQ(hashed[0].key.quotas.max_concurrent, 2);
  write_file_atomic(file, "- {id: ci, key: \"0123456789-0123456789\"}\n").value();
  chmod(file.c_str(), 0644);
  EXPECT_NE(read_fixed_keys(file).error().hint.find("chmod 600"), std::string::npos);
  chmod(file.c_str(), 0600);
  EXPECT_EQ(read_fixed_keys(file).value().size(), 1u);
  EXPECT_TRUE(read_fixed_keys("").value().empty());
  EXPECT_EQ(read_fixed_keys(dir.path() / "none").error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(read_fixed_keys(dir.path())) << "a directory";
}

TEST(KeyFile, NobodyElseMayWriteHashes) {
  TemporaryDirectory dir;
  const fs::path file = dir.path() / "keys.yaml";
  write_file_atomic(file, "- {id: ci, sha256: \"" + std::string(64, 'a') + "\"}\n").value();
  for (const unsigned mode : {0666U, 0664U, 0646U}) {
    chmod(file.c_str(), mode);
    const auto read = read_fixed_keys(file);
    ASSERT_FALSE(read) << std::oct << mode;
    EXPECT_NE(read.error().hint.find("chmod go-w"), std::string::npos) << read.error().hint;
  }
  chmod(file.c_str(), 0644);
  EXPECT_EQ(read_fixed_keys(file).value().size(), 1u);
}

TEST(KeyFile, BelongsToTheServersUserOrToRoot) {
  constexpr std::uint32_t kServer = 1000, kOther = 1001, kRoot = 0;
  const auto passes = [](std::uint32_t owner, std::uint32_t mode, bool secrets) {
    return check_key_file("keys.yaml", {.owner = owner, .mode = mode, .server = kServer, .secrets = secrets})
        .has_value();
  };
  for (const std::uint32_t mode : {0600U, 0644U, 0640U, 0440U, 0400U}) {
    for (const std::uint32_t owner : {kServer, kRoot}) {
      EXPECT_TRUE(passes(owner, mode, false)) << owner << " " << std::oct << mode;
      EXPECT_EQ(passes(owner, mode, true), (mode & 077) == 0) << owner << " " << std::oct << mode;
    }
    EXPECT_FALSE(passes(kOther, mode, false)) << std::oct << mode;
    EXPECT_FALSE(passes(kOther, mode, true)) << std::oct << mode;
  }
  EXPECT_FALSE(passes(kRoot, 0666, false));
}

}  // namespace
}  // namespace tailor
