import java.io.*;
import java.net.*;
import javax.servlet.http.*;
import org.eclipse.jetty.server.*;
import org.eclipse.jetty.server.handler.AbstractHandler;

/** A server of Jetty, and a client of its 500 requests in four threads. */
public class Served {
  public static void main(String[] arguments) throws Exception {
    Server server = new Server(0);
    server.setHandler(new AbstractHandler() {
      public void handle(String target, Request base, HttpServletRequest request, HttpServletResponse response) throws IOException {
        byte[] body = request.getInputStream().readAllBytes();
        int sum = 0;
        for (byte b : body) sum += b & 0xFF;
        response.setContentType("text/plain");
        response.setHeader("X-Method", request.getMethod());
        response.getWriter().println(target + " " + request.getParameter("n") + " " + body.length + " " + sum);
        base.setHandled(true);
      }
    });
    server.start();
    int port = ((ServerConnector) server.getConnectors()[0]).getLocalPort();
    String[] answers = new String[500];
    Thread[] clients = new Thread[4];
    for (int t = 0; t < clients.length; t++) {
      int first = t;
      clients[t] = new Thread(() -> {
        for (int n = first; n < answers.length; n += clients.length) answers[n] = ask(port, n);
      });
      clients[t].start();
    }
    for (Thread client : clients) client.join();
    server.stop();
    for (String answer : answers) System.out.print(answer);
    System.exit(0);
  }

  static String ask(int port, int n) {
    try {
      URL url = new URL("http://127.0.0.1:" + port + "/path/" + n + "?n=" + n);
      HttpURLConnection connection = (HttpURLConnection) url.openConnection();
      if (n % 5 == 0) {
        connection.setDoOutput(true);
        connection.getOutputStream().write(new byte[n * 20 + 1]);
      }
      String body = new String(connection.getInputStream().readAllBytes());
      return connection.getResponseCode() + " " + connection.getHeaderField("X-Method") + " " + body;
    } catch (IOException e) {
      return e + "\n";
    }
  }
}
