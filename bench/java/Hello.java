/** The least that a program can do. With an argument it also tells the most memory that its process has had. */
public class Hello {
    public static void main(String[] arguments) throws Exception {
        System.out.println("Hello, world");
        if (arguments.length > 0) {
            try (var status = new java.io.BufferedReader(new java.io.FileReader("/proc/self/status"))) {
                for (String line; (line = status.readLine()) != null; ) {
                    if (line.startsWith("VmHWM:")) {
                        System.out.println(line.replaceAll("[^0-9]", ""));
                    }
                }
            }
        }
    }
}
