/// What `tailor serve` takes up on SIGHUP, while it runs.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <csignal>
#include <future>

#include "infer/test_models.h"
#include "serve/test_certificates.h"
#include "serve/test_packages.h"
#include "serve/test_server.h"
#include "serve/test_tls_client.h"
#include "tests/recipes/served.h"

namespace tailor::test {
namespace {

namespace fs = std::filesystem;

const std::string kFirst = "first-0123456789-0123456789", kSecond = "second-0123456789-0123456789",
                  kThird = "third-0123456789-0123456789";

void write_keys(const fs::path& file, const std::vector<std::string>& secrets) {
  std::string text;
  for (const std::string& secret : secrets)
    text += fmt::format("- {{id: {}, key: \"{}\", scopes: [infer, admin, metrics]}}\n", secret.substr(0, 5), secret);
  write_file_atomic(file, text).value();
  chmod(file.c_str(), 0600);
}

Answer ask_with(const Served& server, const std::string& secret, const std::string& method, const std::string& path,
                const std::string& body = "") {
  const std::string key = "X-Api-Key: " + secret + "\r\nHost:";
  std::string request = Served::request(method, path, body);
  request.replace(request.find("Host:"), 5, key);
  return server.client().ask(request);
}

TEST(ServeReload, TheFileOfKeysIsReadAgain) {
  const TemporaryDirectory dir;
  const fs::path keys = dir.path() / "keys.yaml", config = dir.path() / "serve.yaml", log = dir.path() / "log";
  write_keys(keys, {kFirst});
  write_file_atomic(config, "keys: {file: keys.yaml}\nthreads: 1\nmodels: [{model: " +
                                tailor::testing::tiny_llama().string() + "}]\n")
      .value();
  Served server({"--config", config.string(), "--log-file", log.string(), "--no-request-log"});
  const auto status = [&](const std::string& secret) { return ask_with(server, secret, "GET", "/v1/models").status; };
  EXPECT_EQ(status(kFirst), 200);
  EXPECT_EQ(status(kSecond), 401);
  write_keys(keys, {kSecond});
  server.signal(SIGHUP);
  EXPECT_TRUE(eventually([&] { return status(kSecond) == 200; }));
  EXPECT_TRUE(eventually([&] { return status(kFirst) == 401; }));
  write_file_atomic(keys, "- {id: ops, kee: x}\n").value();
  server.signal(SIGHUP);
  EXPECT_TRUE(eventually([&] { return contains(read_file(log).value(), "the keys stay as they were"); }));
  EXPECT_EQ(status(kSecond), 200);
}

TEST(ServeReload, AnEmptiedFileOfKeysLetsNobodyIn) {
  const TemporaryDirectory dir;
  const fs::path keys = dir.path() / "keys.yaml", config = dir.path() / "serve.yaml";
  const std::string data = (dir.path() / "data").string();
  write_keys(keys, {kFirst});
  write_file_atomic(config, "keys: {file: keys.yaml}\nthreads: 1\nmodels: [{model: " +
                                tailor::testing::tiny_llama().string() + "}]\n")
      .value();
  const auto serve = [&] {
    return std::vector<std::string>{"--config", config.string(), "--data", data, "--no-request-log"};
  };
  const auto status = [](const Served& server, const std::string& secret) {
    return ask_with(server, secret, "GET", "/v1/models").status;
  };
  {
    const Served server(serve());
    EXPECT_EQ(status(server, kFirst), 200);
    write_file_atomic(keys, "[]\n").value();
    server.signal(SIGHUP);
    EXPECT_TRUE(eventually([&] { return status(server, kFirst) == 401; }));
    EXPECT_EQ(server.client().ask(Served::request("GET", "/v1/models", "")).status, 401);
  }
  const Served again(serve());
  EXPECT_EQ(again.client().ask(Served::request("GET", "/v1/models", "")).status, 401) << "nor does a restart";
}

TEST(ServeReload, ARenewedCertificateIsTakenUp) {
  const TemporaryDirectory dir;
  const fs::path certificate = dir.path() / "cert.pem", key = dir.path() / "key.pem";
  const auto renew = [&](const std::string& name) {
    const Identity identity = make_identity(name);
    write_certificate(certificate, identity);
    write_key(key, identity);
  };
  renew("first");
  Served server({"--model", tailor::testing::tiny_llama().string(), "--threads", "1", "--tls-certificate",
                 certificate.string(), "--tls-key", key.string()});
  TlsClient kept(server.port(), {});
  ASSERT_TRUE(kept.connected);
  EXPECT_EQ(kept.server_name(), "first");
  renew("second");
  server.signal(SIGHUP);
  EXPECT_TRUE(eventually([&] { return TlsClient(server.port(), {}).server_name() == "second"; }));
  kept.send(Served::request("GET", "/livez", ""));
  EXPECT_TRUE(contains(kept.read_through("\"ok\"}"), "200 OK")) << "connections stay";
}

TEST(ServeReload, APromotionIsTakenUpAlsoAfterAModelThatIsBeingLoaded) {
  const TemporaryDirectory dir;
  const fs::path package = dir.path() / "package", keys = dir.path() / "keys.yaml", config = dir.path() / "serve.yaml";
  const std::string data = (dir.path() / "data").string();
  write_neighbours_package(package, true);
  const auto packages = [&](std::vector<std::string> words) {
    words.insert(words.begin(), "packages");
    words.insert(words.begin() + 2, {"--data", data});
    const Outcome done = run(words);
    EXPECT_EQ(done.code, 0) << done.err;
  };
  packages({"add", package.string(), "--name", "support", "--promote"});
  packages({"add", package.string(), "--name", "support"});
  write_keys(keys, {kFirst});
  write_file_atomic(config, "keys: {file: keys.yaml}\nadapters_root: adapters\nthreads: 1\nmodels: [{model: " +
                                tailor::testing::tiny_llama().string() + "}, {stored: support}]\n")
      .value();
  make_directories(dir.path() / "adapters").value();
  Served server({"--config", config.string(), "--data", data, "--no-request-log"});
  const auto version = [&] {
    const Answer answer = ask_with(server, kFirst, "GET", "/v1/models/support");
    return Json::parse(answer.body)["meta"].value("version", "");
  };
  const auto loading = [&] {
    return contains(ask_with(server, kFirst, "GET", "/metrics").body, "\ntailor_loading 1\n");
  };
  EXPECT_EQ(version(), "1");
  packages({"promote", "support", "2"});
  EXPECT_EQ(version(), "1") << "nobody has told the server";
  server.signal(SIGHUP);
  EXPECT_TRUE(eventually([&] { return version() == "2"; }));

  // A pipe that nobody writes to: the server reads from it until this opens it.
  const fs::path pipe = dir.path() / "adapters" / "slow.gguf";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_TRUE(eventually([&] { return !loading(); }));
  auto slow = std::async(std::launch::async, [&] {
    const std::string body = dump_json({{"lora_name", "slow"}, {"lora_path", "slow.gguf"}});
    int status = 0;
    // The promotion is served a moment before its loading has ended; until then others are refused.
    EXPECT_TRUE(eventually([&] {
      status = ask_with(server, kFirst, "POST", "/v1/load_lora_adapter", body).status;
      return status != 503;
    }));
    return status;
  });
  EXPECT_TRUE(eventually(loading));
  packages({"rollback", "support"});
  // Two turns, of which keys are the first part: in the first it has looked at packages.
  for (const std::vector<std::string>& secrets : {std::vector{kFirst, kSecond}, std::vector{kFirst, kSecond, kThird}}) {
    write_keys(keys, secrets);
    server.signal(SIGHUP);
    EXPECT_TRUE(eventually([&] { return ask_with(server, secrets.back(), "GET", "/v1/models").status == 200; }));
  }
  EXPECT_EQ(version(), "2");
  int writer = -1;
  EXPECT_TRUE(eventually([&] { return (writer = open(pipe.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC)) >= 0; }));
  close(writer);
  EXPECT_NE(slow.get(), 200) << "it was no adapter";
  EXPECT_TRUE(eventually([&] { return version() == "1"; })) << "without another signal";
}

TEST(ServeReload, WhileAModelIsLoadedTheEndBegins) {
  const TemporaryDirectory dir;
  const fs::path package = dir.path() / "package", data = dir.path() / "data";
  write_neighbours_package(package, true);
  const auto packages = [&](std::vector<std::string> words) {
    words.insert(words.begin(), "packages");
    words.insert(words.begin() + 2, {"--data", data.string()});
    const Outcome done = run(words);
    EXPECT_EQ(done.code, 0) << done.err;
  };
  packages({"add", package.string(), "--name", "support", "--promote"});
  packages({"add", package.string(), "--name", "support"});
  Served server({"support", "--data", data.string(), "--threads", "1", "--no-request-log"});
  packages({"promote", "support", "2"});
  // The server reads from a pipe until this closes it; signals do not interrupt that.
  const fs::path manifest = data / "packages" / "support" / "2" / "manifest.json";
  fs::remove(manifest);
  ASSERT_EQ(mkfifo(manifest.c_str(), 0600), 0);
  server.signal(SIGHUP);
  int writer = -1;
  EXPECT_TRUE(eventually([&] { return (writer = open(manifest.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC)) >= 0; }));
  server.signal(SIGTERM);
  const auto is_ready = [&] {
    try {
      return server.client().ask(Served::request("GET", "/readyz", "")).status == 200;
    } catch (const std::runtime_error&) {
      return false;  // the port is closed
    }
  };
  EXPECT_TRUE(eventually([&] { return !is_ready(); }));
  close(writer);
  EXPECT_EQ(server.wait(), 0);
}

}  // namespace
}  // namespace tailor::test
