import java.io.*;
import java.net.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.charset.*;
import java.nio.file.*;
import java.nio.file.attribute.*;
import java.util.*;
import java.util.zip.*;

/** What the class library asks of the host: each line names it, what came of it, and whether it threw. */
public class Host {
    interface Step {
        void run() throws Exception;
    }

    static void t(String name, Step step) {
        System.out.print(name + ": ");
        try {
            step.run();
            System.out.println(" ok");
        } catch (Throwable thrown) {
            System.out.println(" threw");
            thrown.printStackTrace(System.out);
        }
    }

    public static void main(String[] arguments) throws Exception {
        File d = Files.createTempDirectory("host").resolve("folder").toFile();
        t("mkdir",()->System.out.print(d.mkdir()+" "+d.isDirectory()));
        File f=new File(d,"a.txt");
        t("write", () -> {
            try(FileOutputStream o=new FileOutputStream(f)){o.write("hello\nworld\n".getBytes());}
        });
        t("read", () -> {
            try(BufferedReader r=new BufferedReader(new FileReader(f))){System.out.print(r.readLine()+r.readLine()+r.readLine());}
        });
        t("raf", () -> {
            try(RandomAccessFile r=new RandomAccessFile(f,"rw")){r.seek(6);r.writeBytes("WORLD");r.seek(0);System.out.print(r.readLine()+r.readLine()+r.length());}
        });
        t("list",()->System.out.print(Arrays.toString(d.list())+f.length()));
        t("nofile", () -> {
            try{new FileInputStream("/nope");}catch(FileNotFoundException e){System.out.print(e.getMessage());}
        });
        Path p=f.toPath();
        t("nio",()->System.out.print(Files.readAllLines(p)+" "+Files.size(p)+" "+Files.isRegularFile(p)));
        t("copy", () -> {
            Files.copy(p,d.toPath().resolve("b.txt"));
            System.out.print(Files.mismatch(p,d.toPath().resolve("b.txt")));
        });
        t("move",()->Files.move(d.toPath().resolve("b.txt"),d.toPath().resolve("c.txt")));
        t("dirs", () -> {
            try(var s=Files.list(d.toPath())){System.out.print(s.map(x->x.getFileName().toString()).sorted().toList());}
        });
        t("attrs",()->System.out.print(Files.getPosixFilePermissions(p).size()+" "+Files.getOwner(p)));
        t("born", () -> {
            FileTime before=Files.readAttributes(p,BasicFileAttributes.class).creationTime();
            Files.setLastModifiedTime(p,FileTime.fromMillis(before.toMillis()+3600_000));
            FileTime after=Files.readAttributes(p,BasicFileAttributes.class).creationTime();
            System.out.print(before.equals(after)+" "+(Math.abs(before.toMillis()-System.currentTimeMillis())<60_000));
        });
        t("nosuch", () -> {
            try{Files.readString(Path.of("/nope"));}catch(NoSuchFileException e){System.out.print(e);}
        });
        t("channel", () -> {
            try(FileChannel c=FileChannel.open(p,StandardOpenOption.READ,StandardOpenOption.WRITE)){MappedByteBuffer m=c.map(FileChannel.MapMode.READ_WRITE,0,c.size());m.put(0,(byte)'J');System.out.print((char)m.get(0)+""+c.size());c.lock().release();}
        });
        t("lost mapping", () -> {
            File g=new File(d,"long");
            try(RandomAccessFile r=new RandomAccessFile(g,"rw")){
                r.setLength(40_000);
                MappedByteBuffer m=r.getChannel().map(FileChannel.MapMode.READ_WRITE,0,40_000);
                m.put(39_999,(byte)1);
                r.setLength(100);
                // Where the error is thrown is for the virtual machine to say.
                try{for(int i=0;i<20;i++){m.get(20_000);Thread.sleep(1);}}catch(InternalError e){System.out.print(e.getMessage().substring(0,16)+" ");}
                System.out.print(m.get(99));
            }
        });
        t("crc", () -> {
            CRC32 c=new CRC32();
            c.update("hello".getBytes());
            Adler32 ad=new Adler32();
            ad.update("hello".getBytes());
            System.out.print(Long.toHexString(c.getValue())+" "+Long.toHexString(ad.getValue()));
        });
        t("zip", () -> {
            byte[] in="hello hello hello hello".repeat(1000).getBytes();
            var bo=new ByteArrayOutputStream();
            try(var g=new GZIPOutputStream(bo)){g.write(in);}byte[] out=new GZIPInputStream(new ByteArrayInputStream(bo.toByteArray())).readAllBytes();
            System.out.print(Arrays.equals(in,out)+" "+(bo.size()<1000));
        });
        t("deflater", () -> {
            Deflater df=new Deflater(9);
            df.setInput(new byte[1000]);
            df.finish();
            byte[] b=new byte[100];
            int n=df.deflate(b);
            Inflater i=new Inflater();
            i.setInput(b,0,n);
            byte[] r=new byte[2000];
            System.out.print(i.inflate(r)+" "+i.finished()+" "+(df.getAdler()==i.getAdler()));
            df.end();
            i.end();
            try{Inflater j=new Inflater();j.setInput(new byte[]{1,2,3,4});j.inflate(r);}catch(DataFormatException e){System.out.print(e.getMessage());}
        });
        t("deflater settings", () -> {
            byte[] text="a text, a text, and a text again".repeat(50).getBytes();
            int right=0;
            for(boolean raw:new boolean[]{false,true})for(int level=-1;level<=9;level++)for(int strategy=0;strategy<=2;strategy++){
                Deflater df=new Deflater(Deflater.DEFAULT_COMPRESSION,raw);
                Inflater i=new Inflater(raw);
                for(int round=0;round<2;round++){
                    df.setLevel(level);
                    df.setStrategy(strategy);
                    df.setInput(text);
                    df.finish();
                    byte[] b=new byte[3000],r=new byte[3000];
                    int length=0;
                    while(!df.finished())length+=df.deflate(b,length,b.length-length);
                    i.setInput(b,0,length);
                    int n=i.inflate(r);
                    if(Arrays.equals(Arrays.copyOf(r,n),text)&&i.finished())right++;
                    df.reset();
                    i.reset();
                }
                df.end();
                i.end();
            }
            System.out.print(right);
        });
        t("one array", () -> {
            byte[] all=new byte[3000],text="in one array ".repeat(100).getBytes();
            System.arraycopy(text,0,all,0,text.length);
            Deflater df=new Deflater(6,true);
            df.setInput(all,0,text.length);
            df.finish();
            int n=df.deflate(all,1500,1500);
            Inflater i=new Inflater(true);
            i.setInput(all,1500,n);
            System.out.print(i.inflate(all,0,1400)+" "+Arrays.equals(all,0,text.length,text,0,text.length)+" "+df.getAdler()+" "+i.getAdler());
        });
        t("jar", () -> {
            try(ZipFile z=new ZipFile("/usr/share/java/commons-lang3.jar")){System.out.print(z.size()+" "+z.getInputStream(z.getEntry("META-INF/MANIFEST.MF")).readAllBytes().length);}
        });
        t("math",()->System.out.print(StrictMath.sin(1)+" "+StrictMath.log10(7)+" "+StrictMath.IEEEremainder(5,3)));
        t("process", () -> {
            Process q=new ProcessBuilder("sh","-c","echo out; echo err >&2; exit 3").redirectErrorStream(true).start();
            System.out.print(new String(q.getInputStream().readAllBytes()).replace('\n','|')+q.waitFor());
        });
        t("noprocess", () -> {
            try{new ProcessBuilder("nonesuch").start();}catch(IOException e){System.out.print(e.getMessage());}
        });
        t("env",()->System.out.print(System.getenv("PATH")!=null));
        t("zone",()->System.out.print(TimeZone.getDefault().getID()));
        t("socket", () -> {
            try(ServerSocket s=new ServerSocket(0)){Socket c=new Socket("localhost",s.getLocalPort());Socket r=s.accept();c.getOutputStream().write("ping".getBytes());c.close();System.out.print(new String(r.getInputStream().readAllBytes()));}
        });
        t("interfaces",()->System.out.print(NetworkInterface.networkInterfaces().map(n->n.getName()+Collections.list(n.getInetAddresses())+n.getInterfaceAddresses()).toList()));
        t("refused", () -> {
            try{new Socket("127.0.0.1",1);}catch(ConnectException e){System.out.print(e.getMessage());}
        });
        t("udp", () -> {
            try(DatagramSocket s=new DatagramSocket(0,InetAddress.getLoopbackAddress());DatagramSocket c=new DatagramSocket()){c.send(new DatagramPacket("dg".getBytes(),2,s.getLocalSocketAddress()));DatagramPacket r=new DatagramPacket(new byte[9],9);s.receive(r);System.out.print(new String(r.getData(),0,r.getLength()));}
        });
        t("selector", () -> {
            Selector s=Selector.open();
            Pipe q=Pipe.open();
            q.source().configureBlocking(false);
            q.source().register(s,SelectionKey.OP_READ);
            q.sink().write(ByteBuffer.wrap("x".getBytes()));
            System.out.print(s.select(1000));
            s.close();
        });
        t("unix", () -> {
            Path u=d.toPath().resolve("s");
            var ad=UnixDomainSocketAddress.of(u);
            try(var s=ServerSocketChannel.open(StandardProtocolFamily.UNIX)){s.bind(ad);var c=SocketChannel.open(ad);var r=s.accept();c.write(ByteBuffer.wrap("unix".getBytes()));c.close();ByteBuffer b=ByteBuffer.allocate(9);r.read(b);System.out.print(b.position());}
        });
        t("peer", () -> {
            try(var c=SocketChannel.open(StandardProtocolFamily.UNIX)){c.getOption(jdk.net.ExtendedSocketOptions.SO_PEERCRED);}
            catch(SocketException e){System.out.print("nobody");}
        });
        t("urgent", () -> {
            try(var s=ServerSocketChannel.open().bind(new InetSocketAddress("127.0.0.1",0));var c=SocketChannel.open(s.getLocalAddress());var r=s.accept()){
                c.configureBlocking(false);
                ByteBuffer b=ByteBuffer.allocate(65536);
                do{b.clear();}while(c.write(b)>0);
                for(;;)c.socket().sendUrgentData(0);
            }catch(IOException e){System.out.print(e.getMessage());}
        });
        t("unknown", () -> {
            try{InetAddress.getByName("no.such.host.invalid");}catch(UnknownHostException e){System.out.print(e.getMessage());}
        });
        t("charset",()->System.out.print(new String("äöü€".getBytes("ISO-8859-15"),"ISO-8859-15")+Charset.defaultCharset()));
        t("random",()->System.out.print(new java.security.SecureRandom().nextInt()!=0));
        t("delete", () -> {
            for(File x:d.listFiles())x.delete();
            System.out.print(d.delete());
        });
    }
}
