#include "core/service_manager.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "core/files.h"

namespace tailor {
namespace {

/// What arrives at a socket of that name ('@': an abstract one) after "READY=1" was sent there.
std::string received_at(const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, name.data(), name.size());
  if (name[0] == '@') address.sun_path[0] = 0;
  const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
  EXPECT_EQ(bind(socket, reinterpret_cast<sockaddr*>(&address), size), 0);
  setenv("NOTIFY_SOCKET", name.c_str(), 1);
  EXPECT_TRUE(tell_service_manager("READY=1"));
  unsetenv("NOTIFY_SOCKET");
  char text[64];
  const ssize_t n = recv(socket, text, sizeof text, MSG_DONTWAIT);
  close(socket);
  return {text, static_cast<std::size_t>(n > 0 ? n : 0)};
}

TEST(ServiceManager, HearsWhatItIsTold) {
  const TemporaryDirectory dir;
  EXPECT_EQ(received_at((dir.path() / "notify").string()), "READY=1");
  EXPECT_EQ(received_at("@tailor-test-" + std::to_string(getpid())), "READY=1");
}

TEST(ServiceManager, NobodyWaits) {
  unsetenv("NOTIFY_SOCKET");
  EXPECT_FALSE(tell_service_manager("READY=1"));
  for (const std::string& name :
       {std::string("/no/such/socket"), std::string("relative"), std::string(), "/" + std::string(200, 'x')}) {
    setenv("NOTIFY_SOCKET", name.c_str(), 1);
    EXPECT_FALSE(tell_service_manager("READY=1")) << name;
  }
  unsetenv("NOTIFY_SOCKET");
}

}  // namespace
}  // namespace tailor
