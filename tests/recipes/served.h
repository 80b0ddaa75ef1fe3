#pragma once
/// `tailor serve` as a child of a test, spoken to over HTTP.

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "serve/test_client.h"
#include "tests/recipes/cli.h"

extern char** environ;

namespace tailor::test {

/// A running server; at its end it is told to end.
class Served {
 public:
  explicit Served(std::vector<std::string> arguments, bool with_port = true) {
    arguments.insert(arguments.begin(), {program().string(), "serve"});
    if (with_port) arguments.insert(arguments.end(), {"--port", "0"});
    if (std::find(arguments.begin(), arguments.end(), "--data") == arguments.end())
      arguments.insert(arguments.end(), {"--data", (data_.path() / "data").string()});
    std::vector<char*> words;
    for (std::string& word : arguments) words.push_back(word.data());
    words.push_back(nullptr);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe failed");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    if (posix_spawn(&pid_, words[0], &actions, nullptr, words.data(), environ) != 0)
      throw std::runtime_error("cannot start");
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    char c;
    while (read(ends[0], &c, 1) == 1 && c != '\n') line_ += c;
    close(ends[0]);
  }
  Served(const Served&) = delete;
  Served& operator=(const Served&) = delete;
  ~Served() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      wait();
    }
  }
  const std::string& line() const { return line_; }
  pid_t pid() const { return pid_; }
  std::uint16_t port() const { return static_cast<std::uint16_t>(std::stoi(line_.substr(line_.rfind(':') + 1))); }
  TestClient client() const { return TestClient::to_port(port()); }
  /// Soft and hard limit of core files.
  std::string core_limits() const {
    std::ifstream limits("/proc/" + std::to_string(pid_) + "/limits");
    const std::string name = "Max core file size";
    for (std::string line, soft, hard; std::getline(limits, line);) {
      if (line.starts_with(name) && std::istringstream(line.substr(name.size())) >> soft >> hard)
        return soft + " " + hard;
    }
    return "";
  }
  void signal(int number) const { kill(pid_, number); }
  /// The exit code, or the signal's number below zero.
  int wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  /// The id of an uploaded file.
  std::string upload(const std::string& content, const std::string& purpose,
                     const std::string& name = "data.jsonl") const {
    const std::string form = "--B\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n" + purpose +
                             "\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + name +
                             "\"\r\n\r\n" + content + "\r\n--B--\r\n";
    const Answer answer = client().ask(request("POST", "/v1/files", form, "multipart/form-data; boundary=B"));
    EXPECT_EQ(answer.status, 200) << answer.body;
    return Json::parse(answer.body, nullptr, false).value("id", "");
  }
  Json ask(const std::string& method, const std::string& path, const Json& body = nullptr, int expected = 200) const {
    const std::string text = body.is_null() ? "" : dump_json(body);
    auto connection = client();
    const Answer answer = connection.ask(request(method, path, text));
    EXPECT_EQ(answer.status, expected) << path << " " << answer.body;
    return Json::parse(answer.body, nullptr, false);
  }
  static std::string request(const std::string& method, const std::string& path, const std::string& body,
                             const std::string& type = "application/json") {
    return method + " " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + type +
           "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }

 private:
  TemporaryDirectory data_;
  pid_t pid_ = -1;
  std::string line_;
};

}  // namespace tailor::test
